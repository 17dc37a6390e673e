-- What the daemons do about what operators order.

-- name: asked
-- Which rows that this worker runs are to be stopped; hardly ever any.  $1 worker, $2 rows at most.  index jobs_cancel_asked
select id, fence, cancel_asked ->> 'actor' as actor, cancel_asked ->> 'reason' as reason
from jobs
where worker_id = $1 and state = 'running' and cancel_asked is not null
order by id limit $2;

-- name: end_asked
-- Rows that came back although somebody wanted them stopped (their worker died, or their attempt failed at that very moment)
-- have waited at the gate 'cancel', which nobody claims from, and end here.  $1 rows at most.
-- index jobs_cancel_asked; job_next for each ordering key
with unwanted as materialized (
    select id from jobs
    where cancel_asked is not null and worker_id is null and state = 'ready'
    order by id limit $1 for update skip locked
), gone as (
    delete from jobs where id = any (array(select id from unwanted)) returning *
), kept as (
    insert into job_history (id, kind, args, queue, org_id, priority, run_at, expires_at, max_attempts, unique_key,
        idempotency_key, ordering_key, lane, correlation_id, traceparent, actor_id, project_id, created_at, state, attempt,
        crashes, worker_id, started_at, finished_at, progress, last_error, reason)
    select id, kind, args, queue, org_id, priority, run_at, expires_at, max_attempts, unique_key,
        idempotency_key, ordering_key, lane, correlation_id, traceparent, actor_id, project_id, created_at, 'cancelled', attempt,
        crashes, worker_id, started_at, now(), progress,
        jsonb_build_object('code', 'cancelled', 'message', coalesce(cancel_asked ->> 'reason', 'cancelled'),
                           'detail', cancel_asked),
        coalesce(cancel_asked ->> 'reason', 'cancelled')
    from gone
), opened as (
    select count(*) from (select distinct kind, ordering_key from gone where ordering_key is not null) as ended
    cross join lateral job_next(kind, ordering_key, false)
)
select queue, (select job_batches_end(array_agg(batch_id), array_agg(id), array_agg('cancelled'::text))
               from gone where batch_id is not null) as batches
from gone cross join opened;

-- name: end_pauses
-- Pauses whose time is over: of queues, kinds, organisations and lanes, and of schedules, whose ticks in the pause are over
-- too, while the first one after it is not.  $1 rows of each at most.  Both tables are small.
with gates as (
    delete from job_holds
    where (gate, cause) in (
        select gate, cause from job_holds where cause = 'pause' and until <= now()
        order by until limit $1 for update skip locked)
    returning gate
), schedules as (
    update job_schedules
    set last_tick_at = greatest(last_tick_at, paused_until), paused_at = null, paused_until = null, paused_by = null,
        pause_reason = null, updated_at = now()
    where name in (
        select name from job_schedules
        where paused_until <= now() and paused_at is not null order by name limit $1 for update skip locked)
    returning name
)
select gate from gates union all select 'schedule:' || name from schedules;

-- name: forget_undo
-- What may no longer be taken back: older than $1 seconds.  The $2 oldest operations' rows are looked at.
-- index job_undo_pkey; the rows by their place
delete from job_undo
where ctid = any (array(
    select ctid from (select ctid, at from job_undo order by operation_id, job_id limit $2) as oldest
    where at < now() - $1::float8 * interval '1 second'));
