-- Everything the daemon does to the rows of one job's life.  Lock order inside a statement: jobs rows, then history.
-- Rows are always picked `for update skip locked` or named by id; no statement waits for another claimer.

-- name: claim
-- Take due rows from every place (queue and gate) that has free slots, in one round trip.  A place is asked either for its
-- rows in order of class and time, whoever they belong to ($3 null), or for those of one organisation in one class.  A row
-- that must not run now, for its kind, organisation, destination or order, is not taken but moved to the gate that says
-- why, where it costs later claims nothing; its attempt is not charged, and its fence stays, since nobody has begun with it
-- (an operator's undo goes by that).  One that stands there already stays as it is.
-- For each source: $1 queue, $2 gate, $3 organisation ('': rows without one), $4 the class to look at first, $5 free slots,
-- $6 to $9 the low-water marks of classes 1 to 4 (seconds since 1970): nothing that is ready is older, only dead entries; in
-- class $14 nothing up to id $15 either, of what is as old as the mark: many rows may have been inserted at one moment.
-- $10 worker, $11 kinds served, $12 gates of lanes of which this daemon may start nothing more: their rows are moved there,
-- $13 now (null: the database's).  From a gate that is held nothing is taken, but by the worker that probes it, for as many
-- rows as it asks for; rows of its lane that come by another way are moved there.  Lanes are told here only while one is
-- shut, and what a handler's own function tells of a lane job_lane does not know: rows without one in their column are
-- judged by the daemon once they are claimed, which costs it a quarter of what it costs here.
-- index jobs_ready, one probe for each source and class; jobs_shares, one for each organisation.  Rows are updated by their
-- place (ctid), which the lock keeps: looking them up by id would cost more the larger the table is, and a join lets the
-- planner scan it.  Which rows of ordering keys may run is asked of job_order, for all of them at once: those it does not
-- name are left as they are.  jobs_ordered_running raises 23505 should two claimers see it differently; the claim is made
-- again.  A debounced row gives its unique key up as it starts, so that a later insert is a row of its own.
-- A lost claim is only claimed again, so its commit need not be synchronous; a worker whose lease ran out gets nothing.
-- Args are cut where the table's check on their size ends, since a few bytes like 1e131071 print to as many digits: what is
-- cut is no JSON any more, and dies as such.  (As varchar: left() counts characters.)
with relaxed as materialized (
    select set_config('synchronous_commit', 'off', true)
), source as materialized ( -- first, or rows of a queue that stands still would be locked and then left
    select asked.*
    from relaxed, unnest($1::text[], $2::text[], $3::text[], $4::smallint[], $5::int[], $6::float8[], $7::float8[],
                         $8::float8[], $9::float8[], $14::smallint[], $15::bigint[])
                  as asked (queue, gate, org_id, first, slots, after1, after2, after3, after4, after_in, after_id)
    where exists (select from job_workers where id = $10 and lease_until > now())
      and 'queue:' || asked.queue not in (select gate from job_holds)
      and (asked.gate = ''
           or asked.gate not in (select gate from job_holds where (detail ->> 'probe')::bigint is distinct from $10::bigint))
), shut as materialized (
    select gate from job_holds where gate like 'lane:%'
    union all
    select unnest($12::text[])
), picked as materialized (
    select due.place, due.id, due.ordering_key, source.gate as stood,
           case when due.kind <> all ($11::text[]) then 'kind:' || due.kind
                when 'kind:' || due.kind <> source.gate and 'kind:' || due.kind in (select gate from job_holds)
                then 'kind:' || due.kind
                when 'org:' || due.org_id <> source.gate and 'org:' || due.org_id in (select gate from job_holds)
                then 'org:' || due.org_id
                when due.lane_gate <> source.gate and due.lane_gate in (select gate from shut)
                then due.lane_gate
           end as hold
    from source
    cross join lateral (
        select ripe.place, ripe.id, ripe.kind, ripe.org_id, ripe.ordering_key,
               case when exists (select from shut) then 'lane:' || job_lane(ripe.kind, ripe.args, ripe.lane) end as lane_gate
        from (select class.priority, to_timestamp(class.after) as after,
                     case when class.priority = source.after_in then source.after_id else 0 end as after_id
              from (values (1::smallint, source.after1), (2::smallint, source.after2), (3::smallint, source.after3),
                           (4::smallint, source.after4)) as class (priority, after)
              where source.org_id is null or class.priority = source.first
              order by class.priority <> source.first, class.priority) as class
        cross join lateral (
            select * from (
                select ctid as place, id, kind, org_id, lane, ordering_key, args from jobs
                where source.org_id is null and queue = source.queue and gate = source.gate
                  and priority = class.priority and state = 'ready'
                  and (run_at, id) > (class.after, class.after_id) and run_at <= coalesce($13::timestamptz, now())
                order by run_at, id
                limit source.slots
                for update skip locked
            ) as of_all
            union all
            select * from (
                select ctid as place, id, kind, org_id, lane, ordering_key, args from jobs
                where source.org_id is not null and queue = source.queue and gate = source.gate
                  and priority = class.priority and coalesce(org_id, '') = source.org_id and state = 'ready'
                  and (run_at, id) > (class.after, class.after_id) and run_at <= coalesce($13::timestamptz, now())
                order by run_at, id
                limit source.slots
                for update skip locked
            ) as of_one
        ) as ripe
        limit source.slots
    ) as due
), turn as materialized (
    select job_id, runs
    from (select array_agg(id) as ids from picked
          where ordering_key is not null and hold is null having count(*) > 0) as ordered
    cross join lateral job_order(ordered.ids)
), held as materialized ( -- and where to; nowhere: it is left as it is
    select place, stood,
           coalesce(hold, case when id = any (array(select job_id from turn where not runs)) then 'order' end) as hold
    from picked
    where hold is not null or ordering_key is not null and id <> all (array(select job_id from turn where runs))
), receipt as (
    insert into job_claims (worker_id, ids)
    select $10, array_agg(id) from picked where place <> all (array(select place from held)) having count(*) > 0
    returning id
)
update jobs
set state      = case when ctid = any (array(select place from held)) then 'ready' else 'running' end,
    gate       = case when ctid = any (array(select place from held))
                      then (array(select hold from held))[array_position(array(select place from held), ctid)]
                      else gate end,
    attempt    = attempt + (ctid <> all (array(select place from held)))::int,
    unique_key = case when on_duplicate <> 'ignore' and ctid <> all (array(select place from held)) then null
                      else unique_key end,
    fence      = fence + (ctid <> all (array(select place from held)))::int,
    worker_id  = case when ctid = any (array(select place from held)) then null else $10::bigint end,
    started_at = case when ctid = any (array(select place from held)) then null else coalesce($13::timestamptz, now()) end
where ctid = any (array(select place from picked
                        where place <> all (array(select place from held where hold is null or hold = stood))))
returning id, fence, kind, queue, priority, attempt, args::text::varchar(262145), date_part('epoch', run_at),
          date_part('epoch', now()), org_id, max_attempts, date_part('epoch', expires_at), ordering_key,
          lane, correlation_id, traceparent, actor_id, project_id, gate, crashes, worker_id,
          (select id from receipt) as claim_id, batch_id;

-- name: ripen
-- Rows whose time has come go back from the gate 'later' to their queue: those that have failed before to the gate 'retry',
-- from which claims take no more than a share while first attempts wait.  For each: $1 queue, $2 class; $3 rows of each at
-- most.  How many, when the earliest of them was due that goes to the queue itself and to that gate (seconds since 1970), and
-- in how many seconds the next one is.  index jobs_ready
with source as materialized (
    select * from unnest($1::text[], $2::smallint[]) as source (queue, priority)
), ripe as materialized (
    select due.place
    from source
    cross join lateral (
        select ctid as place from jobs
        where queue = source.queue and gate = 'later' and priority = source.priority and state = 'ready'
          and run_at <= now()
        order by run_at, id
        limit $3
        for update skip locked
    ) as due
), moved as materialized (
    update jobs set gate = case when attempt > crashes then 'retry' else '' end
    where ctid = any (array(select place from ripe)) returning queue, gate, priority, run_at
)
select source.queue, source.priority, done.n, date_part('epoch', done.first_at), date_part('epoch', done.retry_at),
       date_part('epoch', next.run_at) - date_part('epoch', now())
from source
cross join lateral (
    select count(*)::int as n, min(run_at) filter (where gate = '') as first_at,
           min(run_at) filter (where gate = 'retry') as retry_at
    from moved
    where queue = source.queue and priority = source.priority
) as done
left join lateral (
    select run_at from jobs
    where queue = source.queue and gate = 'later' and priority = source.priority and state = 'ready' and run_at > now()
    order by run_at, id limit 1
) as next on true;

-- name: finish
-- Move rows that ended into history, and write the attempt of those that failed.  A row whose fence has moved on (it was
-- rescued meanwhile) stays: the late writer loses.
-- $1 ids in ascending order, and for each: $2 fence, $3 state (d done, x dead, c cancelled; one character each, since an
-- element of an array of texts is found by walking to it; null: all done), $4 reason, $5 error, $6 result, $7 lane, $8 code,
-- $9 whether to keep it in history (null: all); an array that says nothing is null.  $10 the worker they were claimed by
-- (after a crash of Postgres a claim that was not yet on disk is made again, with the same fence, perhaps by another),
-- $11 claims that end with them.  $12 what these attempts say in the webhooks' log, as ledgers.sql/webhook_deliveries takes it
-- (null: nothing): in a transaction's second statement it would cost as much again as all else here, in batches of twenty.
-- $13 whether a lost answer may mean that it is written already: then a row that is not ours brings nothing.  Returned: the ids,
-- and then without an id which rows may go now since what was before them in their ordering key has ended.
-- index jobs_pkey; job_next for each row with an ordering key.  No predicate here may match a partial index, or the planner
-- walks its dead entries; width_bucket finds an id's place in the arrays by bisection.
with gone as (
    delete from jobs
    where id = any ($1::bigint[]) and fence = ($2::int[])[width_bucket(id, $1::bigint[])] and worker_id = $10
    returning *, width_bucket(id, $1::bigint[]) as n
), kept as (
    insert into job_history (id, kind, args, queue, org_id, priority, run_at, expires_at, max_attempts, unique_key,
        idempotency_key, ordering_key, lane, correlation_id, traceparent, actor_id, project_id, created_at, state, attempt,
        crashes, worker_id, started_at, finished_at, progress, last_error, reason, result)
    select id, kind, args, queue, org_id, priority, run_at, expires_at, max_attempts, unique_key,
        idempotency_key, ordering_key, coalesce(lane, ($7::text[])[n]), correlation_id, traceparent, actor_id, project_id,
        created_at, case ($3::"char"[])[n] when 'x' then 'dead' when 'c' then 'cancelled' else 'done' end, attempt,
        crashes, worker_id, started_at, now(), progress,
        coalesce(($5::text[])[n]::jsonb, last_error), ($4::text[])[n], ($6::text[])[n]::jsonb
    from gone
    where $9::bool[] is null or ($9::bool[])[n]
), failed as (
    insert into job_attempts (job_id, attempt, kind, queue, org_id, correlation_id, worker_id, started_at, ended_at, outcome,
        code, error)
    select id, attempt, kind, queue, org_id, correlation_id, worker_id, started_at, now(), 'dead', ($8::text[])[n],
        ($5::text[])[n]::jsonb
    from gone
    where ($3::"char"[])[n] = 'x'
), logged as (
    insert into webhook_deliveries (job_id, attempt, org_id, correlation_id, endpoint, endpoint_id, event, event_id, url,
        replay_id, outcome, code, status, address, phases, duration_ms, request_bytes, response_headers, response_body,
        response_truncated, started_at)
    select job_id, attempt, org_id, correlation_id, endpoint, endpoint_id, event, event_id, url, replay_id, outcome, code, status,
        address, coalesce(phases, '{}'), duration_ms, request_bytes, coalesce(response_headers, '{}'),
        coalesce(response_body, ''), coalesce(response_truncated, false), to_timestamp(began_at)
    from json_to_recordset($12::text::json) as r (job_id bigint, attempt smallint, org_id text, correlation_id text,
        endpoint text, endpoint_id bigint, event text, event_id bigint, replay_id bigint, url text, outcome text, code text,
        status int, address text, phases jsonb, duration_ms real, request_bytes int, response_headers jsonb,
        response_body text, response_truncated boolean, began_at float8)
    where not $13::bool or job_id = any (array(select id from gone))
), ended as (
    delete from job_claims where id = any ($11::bigint[])
)
select id, null::text as queue, null::smallint as priority, null::float8 as run_at from gone
union all
select null, next.* from gone cross join lateral job_next(kind, ordering_key) as next where ordering_key is not null;

-- name: put_back
-- Return rows to their queue: to be retried, snoozed, handed back untouched or held at a gate.  Fenced as in finish.
-- $1 ids in ascending order, and for each: $2 fence, $3 seconds to wait (null: run_at stays), $4 whether the attempt is
-- charged, $5 gate, $6 error, $7 lane, $8 code, $9 whether it failed (and is written to job_attempts, with the worker and
-- the start that the row had before: what the statement's snapshot still shows); $10 the worker they were claimed by,
-- $11 claims that end with them, $12 seconds from its first failure for which it may hold up the later rows of its ordering
-- key (null: until it ends).  One that would be tried again only after that steps aside at once: to wait until then would
-- keep no order.  A row of the open queue that must wait stands at the gate 'later' until its time, one that has failed before
-- and need not at the gate 'retry'; one that somebody wants stopped goes to the gate 'cancel', for end_asked.  Returned as in
-- finish.
-- index jobs_pkey; job_next for each row with an ordering key
with back as (
    update jobs
    set state      = 'ready',
        gate       = case when cancel_asked is not null then 'cancel'
                          when ($5::text[])[width_bucket(id, $1::bigint[])] = ''
                               and ($3::float8[])[width_bucket(id, $1::bigint[])] > 0 then 'later'
                          when ($5::text[])[width_bucket(id, $1::bigint[])] = ''
                               and attempt - (not ($4::bool[])[width_bucket(id, $1::bigint[])])::int > crashes then 'retry'
                          else ($5::text[])[width_bucket(id, $1::bigint[])] end,
        run_at     = case when ($3::float8[])[width_bucket(id, $1::bigint[])] is null then run_at
                          else now() + ($3::float8[])[width_bucket(id, $1::bigint[])] * interval '1 second' end,
        attempt    = attempt - (not ($4::bool[])[width_bucket(id, $1::bigint[])])::int,
        fence      = fence + 1,
        worker_id  = null,
        started_at = null,
        blocks_until = case when ordering_key is not null and ($9::bool[])[width_bucket(id, $1::bigint[])]
                            then coalesce(blocks_until, now() + ($12::float8[])[width_bucket(id, $1::bigint[])]
                                                                * interval '1 second') else blocks_until end,
        aside      = aside or ordering_key is not null and ($9::bool[])[width_bucket(id, $1::bigint[])]
                     and coalesce(coalesce(blocks_until, now() + ($12::float8[])[width_bucket(id, $1::bigint[])]
                                                                 * interval '1 second')
                                  < now() + ($3::float8[])[width_bucket(id, $1::bigint[])] * interval '1 second', false),
        lane       = coalesce(lane, ($7::text[])[width_bucket(id, $1::bigint[])]),
        last_error = coalesce(($6::text[])[width_bucket(id, $1::bigint[])]::jsonb, last_error)
    where id = any ($1::bigint[]) and fence = ($2::int[])[width_bucket(id, $1::bigint[])]
      and worker_id = $10
    returning id, kind, queue, org_id, correlation_id, ordering_key, attempt, run_at, width_bucket(id, $1::bigint[]) as n
), failed as (
    insert into job_attempts (job_id, attempt, kind, queue, org_id, correlation_id, worker_id, started_at, ended_at, outcome,
        code, error, retry_at)
    select id, attempt, kind, queue, org_id, correlation_id,
        (select worker_id from jobs where jobs.id = back.id), (select started_at from jobs where jobs.id = back.id), now(),
        'retry', ($8::text[])[n], ($6::text[])[n]::jsonb, run_at
    from back
    where ($9::bool[])[n]
), ended as (
    delete from job_claims where id = any ($11::bigint[])
)
select id, null::text as queue, null::smallint as priority, null::float8 as run_at from back
union all
select null, next.* from back cross join lateral job_next(kind, ordering_key) as next where ordering_key is not null;

-- name: look
-- The head of each (queue, gate, class) that has ready rows: when it is due, in seconds since 1970, and the database's clock.
-- The claimer's map.  Beginning after ($1 queue, $2 gate, $3 class), $4 of them at most.  Of those that are known already
-- ($5 queues, $6 gates, $7 classes) only rows as old as their mark or younger ($8, seconds since 1970): the dead entries of
-- what was claimed before, which stay while any transaction pins the vacuum horizon, are not walked over then.
-- index jobs_ready, walked loosely in the gaps between the known ones, one probe for each that is found, and one for each
-- known one
with known as materialized (
    select * from unnest($5::text[], $6::text[], $7::smallint[], $8::float8[]) as known (queue, gate, priority, mark)
    where (queue, gate, priority) > ($1, $2, $3)
), edge as (
    select $1 as queue, $2 as gate, $3::smallint as priority
    union all
    select queue, gate, priority from known
), gap as materialized (
    select queue, gate, priority, lead(queue) over edges as queue_to, lead(gate) over edges as gate_to,
           lead(priority) over edges as priority_to
    from edge
    window edges as (order by queue, gate, priority)
)
select found.queue, found.gate, found.priority, date_part('epoch', found.run_at), date_part('epoch', now())
from (
    select head.* from gap cross join lateral (
        with recursive head as (
            (select queue, gate, priority, run_at from jobs
             where state = 'ready' and (queue, gate, priority) > (gap.queue, gap.gate, gap.priority)
               and (queue, gate, priority) < (gap.queue_to, gap.gate_to, gap.priority_to)
             order by queue, gate, priority, run_at, id limit 1)
            union all
            select next.* from head cross join lateral (
                select queue, gate, priority, run_at from jobs
                where state = 'ready' and (queue, gate, priority) > (head.queue, head.gate, head.priority)
                  and (queue, gate, priority) < (gap.queue_to, gap.gate_to, gap.priority_to)
                order by queue, gate, priority, run_at, id limit 1
            ) as next
        )
        select * from head limit $4
    ) as head
    where gap.queue_to is not null
    union all
    select head.* from gap cross join lateral (
        with recursive head as (
            (select queue, gate, priority, run_at from jobs
             where state = 'ready' and (queue, gate, priority) > (gap.queue, gap.gate, gap.priority)
             order by queue, gate, priority, run_at, id limit 1)
            union all
            select next.* from head cross join lateral (
                select queue, gate, priority, run_at from jobs
                where state = 'ready' and (queue, gate, priority) > (head.queue, head.gate, head.priority)
                order by queue, gate, priority, run_at, id limit 1
            ) as next
        )
        select * from head limit $4
    ) as head
    where gap.queue_to is null
    union all
    select head.* from known cross join lateral (
        select queue, gate, priority, run_at from jobs
        where state = 'ready' and queue = known.queue and gate = known.gate and priority = known.priority
          and run_at >= to_timestamp(known.mark)
        order by run_at, id limit 1
    ) as head
) as found
order by found.queue, found.gate, found.priority
limit $4;

-- name: waiting
-- The organisations that wait at one place, class by class, with their weights; beginning after ($3 class, $4 organisation),
-- $5 of them at most.  $1 queue, $2 gate.  index jobs_shares, walked loosely: one probe for each
with recursive head as (
    (select priority, coalesce(org_id, '') as org_id from jobs
     where state = 'ready' and queue = $1 and gate = $2 and (priority, coalesce(org_id, '')) > ($3, $4)
     order by priority, coalesce(org_id, ''), run_at, id limit 1)
    union all
    select next.priority, next.org_id
    from head
    cross join lateral (
        select priority, coalesce(org_id, '') as org_id from jobs
        where state = 'ready' and queue = $1 and gate = $2 and (priority, coalesce(org_id, '')) > (head.priority, head.org_id)
        order by priority, coalesce(org_id, ''), run_at, id limit 1
    ) as next
), listed as (
    select priority, org_id from head limit $5
)
select listed.priority, listed.org_id, coalesce(job_orgs.weight, 1)::float8
from listed left join job_orgs using (org_id)
order by listed.priority, listed.org_id;

-- name: held
-- Running rows of worker $1 out of claims that it does not know ($2) though they are over 5 seconds old, and those claims;
-- of a claim that holds nothing any more the claim alone.
-- index job_claims_worker, jobs_pkey
select job.id, job.fence, job.kind, job.queue, claim.id
from (select id, ids from job_claims
      where worker_id = $1 and id <> all ($2::bigint[]) and claimed_at < now() - interval '5 seconds'
      order by id limit 100) as claim
left join lateral (
    select id, fence, kind, queue from jobs where id = any (claim.ids) and worker_id = $1 and state = 'running'
) as job on true;

-- name: drop_claims
-- Forget claims of worker $1 that hold none of its rows any more, of those it does not know ($2).
-- index job_claims_worker, jobs_pkey
delete from job_claims
where id = any (array(
    select claim.id
    from (select id, ids from job_claims
          where worker_id = $1 and id <> all ($2::bigint[]) and claimed_at < now() - interval '5 seconds'
          order by id limit 100 for update skip locked) as claim
    where not exists (select from jobs where id = any (claim.ids) and worker_id = $1 and state = 'running')));

-- name: progress
-- Store how far running jobs are.  $1 ids in ascending order, and for each: $2 fence, $3 progress; one that has ended or gone
-- to somebody else stays as it is.  index jobs_pkey
update jobs set progress = ($3::text[])[width_bucket(id, $1::bigint[])]::jsonb
where id = any ($1::bigint[]) and fence = ($2::int[])[width_bucket(id, $1::bigint[])];
