-- What the daemons do about the tables themselves.  Leaderless: each statement is safe to run from any daemon at any time.

-- name: found
-- What there is to do, all in one question, so that idle daemons ask one: workers ($1 at most) whose lease has run out, and
-- such as have claims but no row any more; whether a pause is over; what is paused, as (gate, actor, reason), $2 at most;
-- whether there are rows that were to be stopped and came back, rows that are too late, rows in an order that may have to be
-- opened or let by, open batches, and domains to be checked; how many workers live; and in how many seconds the next lease or
-- pause ends.
-- index job_claims_worker, walked loosely: one probe for each worker; jobs_cancel_asked, jobs_expiring, jobs_blocking,
-- jobs_in_order, job_batches_open, domains_due, one probe each: as scalars, for `exists` would drop the order that leads to them, and read
-- every ready row where nothing has analyzed the table.  Workers, holds and schedules are few, and read whole.  Locks nothing
with recursive holder as (
    (select worker_id from job_claims order by worker_id, id limit 1)
    union all
    select next.worker_id
    from holder
    cross join lateral (
        select worker_id from job_claims where worker_id > holder.worker_id order by worker_id, id limit 1
    ) as next
), lost as (
    (select worker_id as id from holder
     where not exists (select from job_workers where id = holder.worker_id and lease_until > now())
     limit $1)
    union
    (select id from job_workers where lease_until <= now() limit $1)
), pause as (
    select until from job_holds where cause = 'pause'
    union all
    select paused_until from job_schedules where paused_at is not null
), ending as (
    select lease_until as at from job_workers where lease_until > now()
    union all
    select until from pause where until > now()
)
select array(select id from lost) as lost,
       exists (select from pause where until <= now()) as over,
       array(select array[gate, actor, reason] from job_holds where cause = 'pause' order by gate limit $2) as paused,
       coalesce((select true from jobs where cancel_asked is not null and worker_id is null order by worker_id, id limit 1),
                false) as unwanted,
       coalesce((select true from jobs where expires_at <= now() and state = 'ready' order by expires_at limit 1), false) as late,
       coalesce((select true from jobs where blocks_until <= now() and not aside and state = 'ready'
                 order by blocks_until limit 1),
                (select true from jobs where gate = 'order' order by kind, ordering_key limit 1), false) as ordered,
       exists (select from job_batches where ended_at is null order by id limit 1) as children,
       coalesce((select true from domains where next_check_at <= now() order by next_check_at limit 1), false) as domains,
       (select count(*)::int from job_workers where lease_until > now()) as alive,
       (select date_part('epoch', min(at)) - date_part('epoch', now()) from ending) as soon_s;

-- name: expire
-- Bury ready rows whose expires_at has passed.  $1 rows at most.  index jobs_expiring; job_next for each with an ordering key
with late as materialized (
    select id from jobs where expires_at <= now() and state = 'ready' order by expires_at limit $1 for update skip locked
), gone as (
    delete from jobs where id = any (array(select id from late)) returning *
), kept as (
    insert into job_history (id, kind, args, queue, org_id, priority, run_at, expires_at, max_attempts, unique_key,
        idempotency_key, ordering_key, lane, correlation_id, traceparent, actor_id, project_id, created_at, state, attempt,
        crashes, worker_id, started_at, finished_at, progress, last_error, reason)
    select id, kind, args, queue, org_id, priority, run_at, expires_at, max_attempts, unique_key,
        idempotency_key, ordering_key, lane, correlation_id, traceparent, actor_id, project_id, created_at, 'dead', attempt,
        crashes, worker_id, started_at, now(), progress, last_error, 'expired'
    from gone
), opened as (
    select count(*) from (select distinct kind, ordering_key from gone where ordering_key is not null) as ended
    cross join lateral job_next(kind, ordering_key, false)
)
select queue, (select job_batches_end(array_agg(batch_id), array_agg(id), array_agg('dead'::text))
            from gone where batch_id is not null) as batches
from gone cross join opened;

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

-- name: forget_buckets
-- Of $4 buckets of limits, beginning after ($2, $3): those that have been full for $1 seconds (a new one is as full) and of
-- which nobody holds or wants a place; and who held none for as long.  Returns the last bucket looked at, and how many were.
-- index job_limits_pkey, job_limit_holds_pkey: no index on times, which would make each lease write to it.  What is locked is
-- passed over, so nothing waits for another's lock here.
with seen as materialized (
    select name, key from job_limits where (name, key) > ($2, $3) order by name, key limit $4
), idle as (
    delete from job_limit_holds
    where ctid = any (array(
        select hold.ctid from seen join job_limit_holds as hold using (name, key)
        where hold.held = 0 and hold.asked_at < now() - $1::float8 * interval '1 second'
        for update of hold skip locked))
), gone as (
    delete from job_limits
    where ctid = any (array(
        select bucket.ctid from seen join job_limits as bucket using (name, key)
        where bucket.full_at < now() - $1::float8 * interval '1 second'
          and not exists (select from job_limit_holds as hold
                          where hold.name = bucket.name and hold.key = bucket.key
                            and (hold.held > 0 or hold.asked_at >= now() - $1::float8 * interval '1 second'))
        for update of bucket skip locked))
)
select name, key, (select count(*) from seen)::int as looked_at from seen order by name desc, key desc limit 1;
