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
returning queue;

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
