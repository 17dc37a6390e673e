-- Everything the daemon does to the rows of one job's life.  Lock order inside a statement: jobs rows, then history.
-- Rows are always picked `for update skip locked` or named by id; no statement waits for another claimer.

-- name: claim
-- Take due rows for every (queue, gate) that has free slots, best class first, in one round trip.  A row whose kind this
-- daemon does not serve is not taken but moved to the gate 'kind:…' of its queue, where it costs later claims nothing.
-- $1 queues, $2 gates, $3 free slots of each, $4 worker, $5 kinds served, $6 now (null: the database clock), $7 lanes of
-- which this daemon may start nothing more
-- Nothing is taken from the gate of a lane that is held, but by the worker that probes it; rows of such a lane, and of those
-- in $7, that stand in the open queue are moved to its gate.
-- index jobs_ready, one probe for each source and class; future rows lie behind the probe's end.  The picked ids go through
-- an array, since a join lets the planner scan the whole table.  Of an ordering key only the oldest row is eligible
-- (jobs_ordered), while none runs (jobs_ordered_running; two questions, since their `or` would read every row of the key).
-- jobs_ordered_running raises 23505 should two claimers see it differently, and the claim is made again.
-- A lost claim is only claimed again, so its commit need not be synchronous; a worker whose lease ran out gets nothing.
-- Args are cut where the table's check on their size ends, since a few bytes like 1e131071 print to as many digits: what is
-- cut is no JSON any more, and dies as such.
with relaxed as materialized (
    select set_config('synchronous_commit', 'off', true)
), shut as materialized (
    select gate from job_holds where gate like 'lane:%'
    union all
    select 'lane:' || lane from unnest($7::text[]) as lane
), picked as materialized (
    select due.id
    from relaxed, unnest($1::text[], $2::text[], $3::int[]) as source (queue, gate, slots)
    cross join lateral (
        select ripe.id
        from (values (1::smallint), (2::smallint), (3::smallint), (4::smallint)) as class (priority)
        cross join lateral (
            select id from jobs
            where queue = source.queue and gate = source.gate and priority = class.priority and state = 'ready'
              and run_at <= coalesce($6::timestamptz, now())
              and (ordering_key is null
                   or not exists (
                       select from jobs other
                       where other.kind = jobs.kind and other.ordering_key = jobs.ordering_key and other.id < jobs.id)
                   and not exists (
                       select from jobs other
                       where other.kind = jobs.kind and other.ordering_key = jobs.ordering_key
                         and other.state = 'running'))
            order by run_at, id
            limit source.slots
            for update skip locked
        ) as ripe
        limit source.slots
    ) as due
    where exists (select from job_workers where id = $4 and lease_until > now())
      and not exists (select from job_queues where name = source.queue and paused_at is not null)
      and not exists (
          select from job_holds
          where gate = source.gate and (detail ->> 'probe')::bigint is distinct from $4::bigint)
), parked as materialized (
    select id, 'lane:' || job_lane(kind, args, lane) as gate from jobs
    where exists (select from shut) and id = any (array(select id from picked)) and gate = ''
      and 'lane:' || job_lane(kind, args, lane) in (select gate from shut)
), moved as (
    update jobs
    set gate = (select gate from parked where parked.id = jobs.id), fence = fence + 1
    where id = any (array(select id from parked))
    returning id, fence, kind, queue, priority, attempt, '{}', 0::float8, 0::float8, org_id, max_attempts, 0::float8,
              ordering_key, substr(gate, 6), correlation_id, traceparent, actor_id, project_id, gate, crashes, null::bigint
), taken as (
update jobs
set state      = case when kind = any ($5::text[]) then 'running' else 'ready' end,
    gate       = case when kind = any ($5::text[]) then gate else 'kind:' || kind end,
    attempt    = attempt + (kind = any ($5::text[]))::int,
    fence      = fence + 1,
    worker_id  = case when kind = any ($5::text[]) then $4::bigint end,
    started_at = case when kind = any ($5::text[]) then coalesce($6::timestamptz, now()) end
where id = any (array(select id from picked except all select id from parked))
returning id, fence, kind, queue, priority, attempt, left(args::text, 262145), date_part('epoch', run_at),
          date_part('epoch', now()), org_id, max_attempts, date_part('epoch', expires_at), ordering_key,
          job_lane(kind, args, lane), correlation_id, traceparent, actor_id, project_id, gate, crashes, worker_id
)
select * from taken union all select * from moved;

-- name: finish
-- Move rows that ended into history, and write the attempt of those that failed.  A row whose fence has moved on (it was
-- rescued meanwhile) stays: the late writer loses.
-- $1 ids in ascending order, and for each: $2 fence, $3 state, $4 reason, $5 error, $6 result, $7 lane, $8 code,
-- $9 whether to keep it in history, $10 the worker it was claimed by (after a crash of Postgres a claim that was not yet
-- on disk is made again, with the same fence, perhaps by another)
-- index jobs_pkey.  No predicate here may match a partial index, or the planner walks its dead entries; width_bucket
-- finds an id's place in the arrays by bisection.
with gone as (
    delete from jobs
    where id = any ($1::bigint[]) and fence = ($2::int[])[width_bucket(id, $1::bigint[])]
      and worker_id is not distinct from ($10::bigint[])[width_bucket(id, $1::bigint[])]
    returning *, width_bucket(id, $1::bigint[]) as n
), kept as (
    insert into job_history (id, kind, args, queue, org_id, priority, run_at, expires_at, max_attempts, unique_key,
        idempotency_key, ordering_key, lane, correlation_id, traceparent, actor_id, project_id, created_at, state, attempt,
        crashes, worker_id, started_at, finished_at, progress, last_error, reason, result)
    select id, kind, args, queue, org_id, priority, run_at, expires_at, max_attempts, unique_key,
        idempotency_key, ordering_key, coalesce(lane, ($7::text[])[n]), correlation_id, traceparent, actor_id, project_id,
        created_at, ($3::text[])[n], attempt, crashes, worker_id, started_at, now(), progress,
        coalesce(($5::text[])[n]::jsonb, last_error), ($4::text[])[n], ($6::text[])[n]::jsonb
    from gone
    where ($9::bool[])[n]
), failed as (
    insert into job_attempts (job_id, attempt, kind, queue, org_id, correlation_id, worker_id, started_at, ended_at, outcome,
        code, error)
    select id, attempt, kind, queue, org_id, correlation_id, worker_id, started_at, now(), 'dead', ($8::text[])[n],
        ($5::text[])[n]::jsonb
    from gone
    where ($3::text[])[n] = 'dead'
)
select id from gone;

-- name: put_back
-- Return rows to their queue: to be retried, snoozed, handed back untouched or held at a gate.  Fenced as in finish.
-- $1 ids in ascending order, and for each: $2 fence, $3 seconds to wait (null: run_at stays), $4 whether the attempt is
-- charged, $5 gate, $6 error, $7 lane, $8 code, $9 whether it failed (and is written to job_attempts, with the worker and
-- the start that the row had before: what the statement's snapshot still shows), $10 the worker it was claimed by
-- index jobs_pkey
with back as (
    update jobs
    set state      = 'ready',
        gate       = ($5::text[])[width_bucket(id, $1::bigint[])],
        run_at     = case when ($3::float8[])[width_bucket(id, $1::bigint[])] is null then run_at
                          else now() + ($3::float8[])[width_bucket(id, $1::bigint[])] * interval '1 second' end,
        attempt    = attempt - (not ($4::bool[])[width_bucket(id, $1::bigint[])])::int,
        fence      = fence + 1,
        worker_id  = null,
        started_at = null,
        lane       = coalesce(lane, ($7::text[])[width_bucket(id, $1::bigint[])]),
        last_error = coalesce(($6::text[])[width_bucket(id, $1::bigint[])]::jsonb, last_error)
    where id = any ($1::bigint[]) and fence = ($2::int[])[width_bucket(id, $1::bigint[])]
      and worker_id is not distinct from ($10::bigint[])[width_bucket(id, $1::bigint[])]
    returning id, kind, queue, org_id, correlation_id, attempt, run_at, width_bucket(id, $1::bigint[]) as n
), failed as (
    insert into job_attempts (job_id, attempt, kind, queue, org_id, correlation_id, worker_id, started_at, ended_at, outcome,
        code, error, retry_at)
    select id, attempt, kind, queue, org_id, correlation_id,
        (select worker_id from jobs where jobs.id = back.id), (select started_at from jobs where jobs.id = back.id), now(),
        'retry', ($8::text[])[n], ($6::text[])[n]::jsonb, run_at
    from back
    where ($9::bool[])[n]
)
select id from back;

-- name: look
-- Which (queue, gate) pairs have ready rows, whether one is due now, and in how many seconds the next one is: the claimer's
-- map.  Paused queues are left out.  At most $1 pairs.
-- index jobs_ready, walked loosely: one probe for each pair, four for its due times.  Seconds are subtracted, not times:
-- Postgres 16 refuses to subtract 'infinity'.
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
    select queue, gate from pair
    where not exists (select from job_queues where name = pair.queue and paused_at is not null)
    limit $1
)
select listed.queue, listed.gate, date_part('epoch', min(head.run_at)) - date_part('epoch', now()) as next_s
from listed
cross join (values (1::smallint), (2::smallint), (3::smallint), (4::smallint)) as class (priority)
cross join lateral (
    select run_at from jobs
    where queue = listed.queue and gate = listed.gate and priority = class.priority and state = 'ready'
    order by run_at, id limit 1
) as head
group by listed.queue, listed.gate;

-- name: held
-- Running rows of worker $1 that it claimed over 5 seconds ago.  index jobs_running
select id, fence, kind, queue from jobs
where worker_id = $1 and state = 'running' and started_at < now() - interval '5 seconds';

-- name: progress
-- Store how far a running job is.  $1 id, $2 fence, $3 progress.  index jobs_pkey
update jobs set progress = $3::text::jsonb where id = $1 and fence = $2 returning id;
