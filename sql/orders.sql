-- What operators order about many rows, in batches.  Rows are picked in pages along a primary key, each page a bounded number
-- of rows to look at, and changed by id, in transactions of at most 1,000.  Every change looks at the row's state again under
-- its lock, and skips rows that somebody else holds at that moment.  Lock order: jobs rows, then history, then job_undo.

-- Of a batch's own rows the planner expects one; where two such sets meet, `(… in (…)) is true` makes it hash one of them, which
-- a join would compare row by row.

-- name: pick_live
-- The next page of live rows: how many were looked at, the last id, and the ids that the filters want.
-- $1 after this id, $2 rows to look at, $3 states (scheduled: ready, but later), $4 kind, $5 queue, $6 org_id, $7 lane,
-- $8 gate, $9 priority, $10 and $11 created from and before, $12 and $13 due from and before; null: any.  index jobs_pkey
select count(*)::int as looked, max(id) as last,
       coalesce(array_agg(id order by id) filter (
           where (state = any ($3::text[]) or ('scheduled' = any ($3::text[]) and state = 'ready' and run_at > now()))
             and ($4::text is null or kind = $4) and ($5::text is null or queue = $5) and ($6::text is null or org_id = $6)
             and ($7::text is null or lane = $7) and ($8::text is null or gate = $8)
             and ($9::smallint is null or priority = $9)
             and ($10::timestamptz is null or created_at >= $10) and ($11::timestamptz is null or created_at < $11)
             and ($12::timestamptz is null or run_at >= $12) and ($13::timestamptz is null or run_at < $13)), '{}') as ids
from (select * from jobs where id > $1 order by id limit $2) as page;

-- name: pick_dead
-- The next page of dead letters, oldest first: as pick_live, with when the first and the last of the page ended.
-- $1, $2 after this (finished_at, id), $3 rows to look at, $4 ended before, $5 kind, $6 queue, $7 org_id, $8 lane,
-- $9 priority, $10 and $11 created from and before, $12 code.  index job_history_dead of each partition, merged
select count(*)::int as looked, min(finished_at) as first, max(finished_at) as last,
       (array_agg(id order by finished_at desc, id desc))[1] as last_id,
       coalesce(array_agg(id order by finished_at, id) filter (
           where ($5::text is null or kind = $5) and ($6::text is null or queue = $6) and ($7::text is null or org_id = $7)
             and ($8::text is null or lane = $8) and ($9::smallint is null or priority = $9)
             and ($10::timestamptz is null or created_at >= $10) and ($11::timestamptz is null or created_at < $11)
             and ($12::text is null or last_error ->> 'code' = $12 or reason = $12)), '{}') as ids
from (select * from job_history
      where state = 'dead' and (finished_at, id) > ($1::timestamptz, $2::bigint) and finished_at < $4::timestamptz
      order by finished_at, id limit $3) as page;

-- name: sample_live
-- What a dry run shows of ids $1.  index jobs_pkey
select id, kind, queue, org_id, state, gate, run_at from jobs where id = any ($1::bigint[]) order by id;

-- name: sample_dead
-- As sample_live, of dead letters; $2 and $3 bounds of finished_at.  index job_history_id of the partitions between them
select id, kind, queue, org_id, state, last_error ->> 'code' as code, finished_at from job_history
where id = any ($1::bigint[]) and state = 'dead' and finished_at >= $2::timestamptz and finished_at <= $3::timestamptz
order by finished_at, id;

-- name: add_up
-- One more batch of operation $1, with $2 rows changed and $3 running rows asked to stop; of the first batch with rows $4, ids
-- for whoever reads the audit.
select job_audit_add_up($1, $2, $3, $4::bigint[]);

-- name: cancel
-- Move waiting rows to history as cancelled.  A row that somebody is claiming just now is skipped, as are running ones.
-- $1 ids, $2 reason, $3 operation.  index jobs_pkey; job_next for each ordering key
with waiting as materialized (
    select id from jobs where id = any ($1::bigint[]) and state = 'ready' for update skip locked
), gone as (
    delete from jobs where id = any (array(select id from waiting)) returning *
), kept as (
    insert into job_history (id, kind, args, queue, org_id, priority, run_at, expires_at, max_attempts, unique_key,
        idempotency_key, ordering_key, lane, correlation_id, traceparent, actor_id, project_id, created_at, state, attempt,
        crashes, worker_id, started_at, finished_at, progress, last_error, reason)
    select id, kind, args, queue, org_id, priority, run_at, expires_at, max_attempts, unique_key,
        idempotency_key, ordering_key, lane, correlation_id, traceparent, actor_id, project_id, created_at, 'cancelled',
        attempt, crashes, worker_id, started_at, now(), progress, last_error, coalesce($2::text, 'cancelled')
    from gone
), noted as (
    insert into job_undo (operation_id, job_id, did, was)
    select $3::bigint, id, 'cancelled', jsonb_build_object('fence', fence) from gone
), opened as (
    select count(*) from (select distinct kind, ordering_key from gone where ordering_key is not null) as ended
    cross join lateral job_next(kind, ordering_key, false)
)
select id, queue, (select job_batches_end(array_agg(batch_id), array_agg(id), array_agg('cancelled'::text))
                   from gone where batch_id is not null) as batches
from gone cross join opened order by id;

-- name: tally
-- Cancelled just now: $1 queues in ascending order, $2 how many of each.  Counted under worker 0, to which the daemons' totals of
-- past days are added; two operations that cancel rows of one queue wait for each other here.  index job_tallies_pkey
insert into job_tallies as old (hour, queue, outcome, worker_id, n)
select date_trunc('hour', now(), 'UTC'), ended.queue, 'cancelled', 0, ended.n
from unnest($1::text[], $2::bigint[]) as ended (queue, n)
on conflict (hour, queue, outcome, worker_id) do update set n = old.n + excluded.n;

-- name: ask
-- Mark running rows that are to be stopped; their daemons are called after the commit.  One that is asked already, or is
-- ending just now, is skipped.  $1 ids, $2 actor, $3 reason, $4 operation.  index jobs_pkey
with theirs as materialized (
    select id from jobs
    where id = any ($1::bigint[]) and state = 'running' and cancel_asked is null for update skip locked
)
update jobs
set cancel_asked = jsonb_build_object('actor', $2::text, 'reason', $3::text, 'operation', $4::bigint, 'at', now())
where id = any (array(select id from theirs))
returning id;

-- name: postpone
-- Waiting rows that are due before a moment are due then.  $1 ids, $2 the moment, $3 or seconds from now, $4 operation.
-- A row at another gate stays there: what holds it holds it still.  index jobs_pkey
with waiting as materialized (
    select id, run_at, fence, coalesce($2::timestamptz, now() + $3::float8 * interval '1 second') as due
    from jobs
    where id = any ($1::bigint[]) and state = 'ready'
      and run_at < coalesce($2::timestamptz, now() + $3::float8 * interval '1 second')
    for update skip locked
), noted as (
    insert into job_undo (operation_id, job_id, did, was)
    select $4::bigint, id, 'postponed', jsonb_build_object('fence', fence, 'run_at', run_at, 'due', due) from waiting
)
update jobs
set run_at = coalesce($2::timestamptz, now() + $3::float8 * interval '1 second'),
    gate = case when gate in ('', 'later', 'retry') then
               case when coalesce($2::timestamptz, now() + $3::float8 * interval '1 second') > now() then 'later'
                    when attempt > crashes then 'retry' else '' end
           else gate end
where id = any (array(select id from waiting))
returning id;

-- name: retry
-- Dead or cancelled rows live again under their ids, with all their attempts before them, one every $3 seconds from $2
-- seconds on: a rate that stands in the rows, and needs nobody to keep it.  A row whose unique key another unfinished job has
-- by now stays.  Its idempotency key is its own already, so the insert must not ask for it again: `restore` puts it back.
-- $1 ids, $4 states, $5 and $6 bounds of finished_at (null: any), $7 operation.  index job_history_id of the partitions
-- between them.
-- The fence starts at a number no earlier life of the row can have reached (it grew from 0, or from an earlier second, by
-- less than one a second): a writer left over from that life must lose.  An expires_at that has passed would end it at once.
with asked as materialized (
    select distinct on (id) * from (
        select * from job_history
        where id = any ($1::bigint[]) and state = any ($4::text[])
          and finished_at >= coalesce($5::timestamptz, '-infinity') and finished_at <= coalesce($6::timestamptz, 'infinity')
        for update skip locked) as dead
    order by id, finished_at desc
), back as (
    insert into jobs (id, kind, args, queue, org_id, priority, run_at, expires_at, max_attempts, unique_key, ordering_key,
        lane, correlation_id, traceparent, actor_id, project_id, created_at, last_error, fence)
    overriding system value
    select id, kind, args, queue, org_id, priority,
        now() + ($2::float8 + (row_number() over (order by id) - 1) * $3::float8) * interval '1 second',
        case when expires_at > now() then expires_at end, max_attempts, unique_key, ordering_key, lane, correlation_id,
        traceparent, actor_id, project_id, created_at, last_error, date_part('epoch', now())::bigint - 1700000000
    from asked
    on conflict do nothing
    returning id
), gone as (
    delete from job_history
    where id = any (array(select id from back)) and state = any ($4::text[])
      and finished_at >= coalesce($5::timestamptz, '-infinity') and finished_at <= coalesce($6::timestamptz, 'infinity')
    returning id
), noted as (
    insert into job_undo (operation_id, job_id, did, was)
    select $7::bigint, id, 'retried',
        to_jsonb(asked) - 'args' || jsonb_build_object('fence', date_part('epoch', now())::bigint - 1700000000)
    from asked
    where (id in (select id from back)) is true
)
select id, idempotency_key, 0::smallint as attempt, 0::smallint as crashes
from asked
where (id in (select id from back)) is true
order by id;

-- name: restore
-- What an insert may not give, in its transaction.  $1 ids, and for each: $2 idempotency_key, $3 attempt, $4 crashes.
-- index jobs_pkey
update jobs
set idempotency_key = asked.key, attempt = asked.attempt, crashes = asked.crashes,
    gate = case when gate = '' and asked.attempt > asked.crashes then 'retry' else gate end
from unnest($1::bigint[], $2::text[], $3::smallint[], $4::smallint[]) as asked (id, key, attempt, crashes)
where jobs.id = asked.id;

-- name: purge_live
-- Delete waiting rows for good; running ones and rows that are being claimed are skipped.  $1 ids.
-- index jobs_pkey; job_next for each ordering key
with waiting as materialized (
    select id from jobs where id = any ($1::bigint[]) and state = 'ready' for update skip locked
), gone as (
    delete from jobs where id = any (array(select id from waiting)) returning id, kind, ordering_key
), opened as (
    select count(*) from (select distinct kind, ordering_key from gone where ordering_key is not null) as ended
    cross join lateral job_next(kind, ordering_key, false)
)
select id from gone cross join opened;

-- name: purge_dead
-- Delete dead letters for good.  $1 ids, $2 and $3 bounds of their finished_at.  index job_history_id of the partitions
-- between them
delete from job_history
where id = any ($1::bigint[]) and state = 'dead' and finished_at >= $2::timestamptz and finished_at <= $3::timestamptz
returning id;

-- name: operation
-- Who ordered what.  $1 operation.  index job_audit_pkey
select id, at, actor, action, subject, reason, detail from job_audit where id = $1;

-- name: undo_page
-- What operation $1 did and has not been taken back, after job $2; $3 rows at most.  index job_undo_pkey
select job_id, did, at from job_undo where operation_id = $1 and job_id > $2 order by job_id limit $3;

-- name: undo_cancel
-- Cancelled rows wait again under their ids, due when they were due, with the attempts they had.  A row that was retried
-- since is not in the history any more, and one whose unique key is taken by now stays there.
-- $1 operation, $2 ids, $3 and $4 bounds of when they were cancelled.  index job_undo_pkey, job_history_id of the partitions
-- between the bounds.  As in retry, `restore` follows, and the fence is one that no earlier life has reached.
with meant as materialized (
    select job_id, at, (was ->> 'fence')::int as fence from job_undo
    where operation_id = $1 and job_id = any ($2::bigint[]) and did = 'cancelled'
), asked as materialized (
    select job_history.*, meant.fence
    from job_history join meant on meant.job_id = job_history.id and meant.at = job_history.finished_at
    where state = 'cancelled' and finished_at >= $3::timestamptz and finished_at <= $4::timestamptz
    for update of job_history skip locked
), back as (
    insert into jobs (id, kind, args, queue, org_id, priority, run_at, expires_at, max_attempts, unique_key, ordering_key,
        lane, correlation_id, traceparent, actor_id, project_id, created_at, progress, last_error, fence)
    overriding system value
    select id, kind, args, queue, org_id, priority, run_at, expires_at, max_attempts, unique_key, ordering_key, lane,
        correlation_id, traceparent, actor_id, project_id, created_at, progress, last_error,
        greatest(date_part('epoch', now())::bigint - 1700000000, fence + 1)
    from asked
    on conflict do nothing
    returning id
), gone as (
    delete from job_history
    where id = any (array(select id from back)) and state = 'cancelled'
      and finished_at >= $3::timestamptz and finished_at <= $4::timestamptz
), used as (
    delete from job_undo where operation_id = $1 and job_id = any (array(select id from back))
)
select id, idempotency_key, attempt, crashes from asked where (id in (select id from back)) is true order by id;

-- name: undo_retry
-- Rows that nobody has claimed since they were retried go back to the history as they were.  Where the day they ended on has
-- been dropped meanwhile, they ended now: the default partition is never pruned.
-- $1 operation, $2 ids.  index job_undo_pkey, jobs_pkey; job_next for each ordering key
with meant as materialized (
    select job_id, was from job_undo
    where operation_id = $1 and job_id = any ($2::bigint[]) and did = 'retried'
), same as materialized (
    select id, was from jobs join meant on job_id = id and (was ->> 'fence')::int = fence
    where state = 'ready'
    for update of jobs skip locked
), gone as (
    delete from jobs using same where jobs.id = same.id
    returning jobs.id, jobs.kind, jobs.ordering_key, jobs.args, same.was
), kept as (
    insert into job_history
    select row.*
    from gone
    cross join lateral jsonb_populate_record(null::job_history, was || jsonb_build_object(
        'args', args,
        'finished_at', case
            when to_regclass(format('job_history_%s',
                     to_char((was ->> 'finished_at')::timestamptz at time zone 'UTC', 'YYYYMMDD'))) is null then now()
            else (was ->> 'finished_at')::timestamptz end)) as row
), used as (
    delete from job_undo where operation_id = $1 and job_id = any (array(select id from gone))
), opened as (
    select count(*) from (select distinct kind, ordering_key from gone where ordering_key is not null) as ended
    cross join lateral job_next(kind, ordering_key, false)
)
select id from gone cross join opened order by id;

-- name: undo_postpone
-- Rows that nobody has claimed or moved since are due again when they were.  $1 operation, $2 ids.
-- index job_undo_pkey, jobs_pkey
with meant as materialized (
    select job_id, (was ->> 'fence')::int as fence, (was ->> 'run_at')::timestamptz as run_at,
           (was ->> 'due')::timestamptz as due
    from job_undo where operation_id = $1 and job_id = any ($2::bigint[]) and did = 'postponed'
), same as materialized (
    select id, meant.run_at from jobs join meant on meant.job_id = id and meant.fence = jobs.fence and due = jobs.run_at
    where state = 'ready'
    for update of jobs skip locked
), back as (
    update jobs
    set run_at = same.run_at,
        gate = case when gate in ('', 'later', 'retry')
                    then case when same.run_at > now() then 'later' when attempt > crashes then 'retry' else '' end
                    else gate end
    from same
    where jobs.id = same.id
    returning jobs.id
), used as (
    delete from job_undo where operation_id = $1 and job_id = any (array(select id from back))
)
select id from back order by id;
