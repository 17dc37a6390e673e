-- Who runs, and what happens to the rows of those who no longer do.

-- name: register
-- A worker's first sign of life.  $1 name, $2 version, $3 kinds, $4 queue patterns, $5 lease seconds
insert into job_workers (name, version, kinds, queues, lease_until)
values ($1, $2, $3::text[], $4::text[], now() + $5::float8 * interval '1 second')
returning id;

-- name: heartbeat
-- Prolong the lease, unless it ran out: a lease is never brought back, since its rows may have gone to others.  No row
-- returned means it is lost.  $1 worker, $2 lease seconds, $3 draining, $4 kinds, $5 what it runs, {queue: how many}.
-- index job_workers_pkey
update job_workers
set heartbeat_at = now(), lease_until = now() + $2::float8 * interval '1 second', draining = $3, kinds = $4::text[],
    running = $5::text::jsonb
where id = $1 and lease_until > now()
returning date_part('epoch', now());

-- name: leave
-- Remove a worker that ends in good order, with the limits it held.  Rows it still holds (of a claim whose answer was
-- lost) go back untouched.  $1 worker, $2 claims at most: were there more, it stays, to be rescued.
-- index job_workers_pkey, job_claims_worker, jobs_pkey
with holds as (
    delete from job_limit_holds where worker_id = $1
), claimed as materialized (
    select id, ids from job_claims where worker_id = $1 order by id limit $2 for update
), back as (
    update jobs
    set state = 'ready', gate = case when cancel_asked is null then gate else 'cancel' end, attempt = attempt - 1,
        fence = fence + 1, worker_id = null, started_at = null
    where id = any (array(select unnest(ids) from claimed)) and worker_id = $1 and state = 'running'
), ended as (
    delete from job_claims where id = any (array(select id from claimed))
)
delete from job_workers where id = $1 and (select count(*) from claimed) < $2;

-- name: rescue
-- Return the rows of a lost worker to their queues, and bury those that have now lost $2 workers: such a row is more likely
-- the cause than the victim.  $1 worker, $2 crash limit, $3 claims at most.  Called until no claim is left.  Two daemons at
-- the same work take different claims; a claim goes when none of its rows is the worker's any more, as its own snapshot
-- shows it: the call after the one that returned them.
-- index job_claims_worker, jobs_pkey; job_next for each buried row with an ordering key
with claimed as materialized (
    select id, ids from job_claims where worker_id = $1 order by id limit $3 for update skip locked
), lost as materialized (
    select id, crashes, started_at from jobs
    where id = any (array(select unnest(ids) from claimed)) and worker_id = $1 and state = 'running'
    for update skip locked
), dead as (
    delete from jobs where id = any (array(select id from lost where crashes + 1 >= $2)) returning *
), buried as (
    insert into job_history (id, kind, args, queue, org_id, priority, run_at, expires_at, max_attempts, unique_key,
        idempotency_key, ordering_key, lane, correlation_id, traceparent, actor_id, project_id, created_at, state, attempt,
        crashes, worker_id, started_at, finished_at, progress, last_error, reason)
    select id, kind, args, queue, org_id, priority, run_at, expires_at, max_attempts, unique_key,
        idempotency_key, ordering_key, lane, correlation_id, traceparent, actor_id, project_id, created_at, 'dead', attempt,
        crashes + 1, worker_id, started_at, now(), progress,
        jsonb_build_object('code', 'crashed', 'message', 'its worker died ' || crashes + 1 || ' times while it ran'),
        'crashed'
    from dead
), back as (
    update jobs
    set state = 'ready', gate = case when cancel_asked is null then '' else 'cancel' end, fence = fence + 1,
        crashes = crashes + 1, worker_id = null, started_at = null
    where id = any (array(select id from lost where crashes + 1 < $2))
    returning id, kind, queue, org_id, correlation_id, attempt
), failed as (
    insert into job_attempts (job_id, attempt, kind, queue, org_id, correlation_id, worker_id, started_at, ended_at, outcome,
        code)
    select id, attempt, kind, queue, org_id, correlation_id, $1, lost.started_at, now(), 'crashed', 'crashed'
    from back join lost using (id)
    union all
    select id, attempt, kind, queue, org_id, correlation_id, worker_id, started_at, now(), 'crashed', 'crashed' from dead
), opened as (
    select count(*) from (select distinct kind, ordering_key from dead where ordering_key is not null) as ended
    cross join lateral job_next(kind, ordering_key, true)
)
select (select count(*) from back) as back, array(select queue::text from dead) as dead,
       (select count(*) from job_claims where worker_id = $1) as claims,
       (select job_batches_end(array_agg(batch_id), array_agg(id), array_agg('dead'::text))
        from dead where batch_id is not null) as batches, opened.count as opened
from opened;

-- name: drop_lost_claims
-- Forget the claims of a lost worker ($1) that hold none of its rows any more; $2 at most.
-- index job_claims_worker, jobs_pkey
delete from job_claims
where id = any (array(
    select claim.id
    from (select id, ids from job_claims where worker_id = $1 order by id limit $2 for update skip locked) as claim
    where not exists (select from jobs where id = any (claim.ids) and worker_id = $1 and state = 'running')));

-- name: forget
-- Remove a lost worker once it has no claim.  $1 worker.  index job_workers_pkey, job_claims_worker
with gone as (
    delete from job_workers
    where id = $1 and lease_until <= now()
      and not exists (select from job_claims where worker_id = $1)
    returning id
)
delete from job_limit_holds where worker_id = $1 and not exists (
    select from job_workers where id = $1 and lease_until > now());

-- name: hint
-- Wake every daemon of this schema, as the insert trigger does.
select pg_notify(left('jobsd:' || current_schema(), 63), '');
