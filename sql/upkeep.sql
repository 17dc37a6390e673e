-- What the daemons do about the tables themselves.  Leaderless: each statement is safe to run from any daemon at any time.

-- name: expire
-- Bury ready rows whose expires_at has passed.  $1 rows at most.  index jobs_expiring
with late as materialized (
    select id from jobs where expires_at <= now() and state = 'ready' order by expires_at limit $1 for update skip locked
), gone as (
    delete from jobs where id = any (array(select id from late)) returning *
)
insert into job_history (id, kind, args, queue, org_id, priority, run_at, expires_at, max_attempts, unique_key,
    idempotency_key, ordering_key, lane, correlation_id, traceparent, actor_id, project_id, created_at, state, attempt,
    crashes, worker_id, started_at, finished_at, progress, last_error, reason)
select id, kind, args, queue, org_id, priority, run_at, expires_at, max_attempts, unique_key,
    idempotency_key, ordering_key, lane, correlation_id, traceparent, actor_id, project_id, created_at, 'dead', attempt,
    crashes, worker_id, started_at, now(), progress, last_error, 'expired'
from gone
returning id;

-- name: partitions_make
-- $1 parent table, $2 days ahead
select job_partitions_make($1, $2);

-- name: partitions_drop
-- $1 parent table, $2 seconds to keep, $3 partitions at most
select job_partitions_drop($1, $2::float8 * interval '1 second', $3);

-- name: forget_keys
-- Idempotency keys older than $1 seconds; $2 rows at most.  index job_keys_age; the locked rows by their place
delete from job_keys
where ctid = any (array(
    select ctid from job_keys where created_at < now() - $1::float8 * interval '1 second'
    order by created_at limit $2 for update skip locked));

-- name: forget_audit
-- Audit rows older than $1 seconds; $2 rows at most.  index job_audit_at; the locked rows by their place
delete from job_audit
where ctid = any (array(
    select ctid from job_audit where at < now() - $1::float8 * interval '1 second'
    order by at limit $2 for update skip locked));

-- name: count
-- For metrics: ready, due age and running rows of each queue and gate, counted up to $1 each, for at most $2 pairs.
-- index jobs_ready, walked loosely
with recursive pair as (
    (select queue, gate from jobs where state = 'ready' order by queue, gate limit 1)
    union all
    select next.queue, next.gate
    from pair
    cross join lateral (
        select queue, gate from jobs
        where state = 'ready' and (queue, gate) > (pair.queue, pair.gate)
        order by queue, gate limit 1
    ) as next
), listed as (
    select queue, gate from pair limit $2
)
select listed.queue, listed.gate, sum(due.n)::bigint as ready, sum(later.n)::bigint as scheduled,
       coalesce(max(due.age), 0)::float8 as oldest_s
from listed
cross join (values (1::smallint), (2::smallint), (3::smallint), (4::smallint)) as class (priority)
cross join lateral (
    select count(*) as n, date_part('epoch', now()) - date_part('epoch', min(run_at)) as age
    from (select run_at from jobs
          where queue = listed.queue and gate = listed.gate and priority = class.priority and state = 'ready'
            and run_at <= now()
          order by run_at limit $1) as bounded
) as due
cross join lateral (
    select count(*) as n
    from (select from jobs
          where queue = listed.queue and gate = listed.gate and priority = class.priority and state = 'ready'
            and run_at > now()
          order by run_at limit $1) as bounded
) as later
group by listed.queue, listed.gate;

-- name: count_running
-- For metrics: running rows by queue, of at most $1.  index jobs_pkey, for each claim
select queue, count(*) as running
from (select job.queue
      from job_claims as claim
      cross join lateral (select queue from jobs
                          where id = any (claim.ids) and worker_id = claim.worker_id and state = 'running') as job
      limit $1) as bounded
group by queue;

-- name: count_dead
-- For metrics: dead letters by queue, of the newest $1.  index job_history_dead
select queue, count(*) as dead
from (select queue from job_history where state = 'dead' order by finished_at desc limit $1) as bounded
group by queue;
