-- Destinations that are closed, and the one probe that finds out whether they are well again.  job_holds is small: a row for
-- each thing that stands still, read whole by every claim.

-- name: close
-- Close lanes: holds are only prolonged, so that two daemons that say so at once agree, unless it is the probe's own worker
-- that says how it went.  For each: $1 gate, in ascending order, $2 cause, $3 seconds, $4 rung, $5 reason; $6 worker.
-- index job_holds_pkey; locks the rows it writes, in the order given
insert into job_holds as hold (gate, cause, until, reason, detail)
select gate, cause, now() + seconds * interval '1 second', reason, jsonb_build_object('rung', rung, 'by', $6::bigint)
from unnest($1::text[], $2::text[], $3::float8[], $4::int[], $5::text[]) as closing (gate, cause, seconds, rung, reason)
on conflict (gate, cause) do update
set until = excluded.until, reason = excluded.reason, detail = excluded.detail
where hold.until < excluded.until or (hold.detail ->> 'probe')::bigint = $6::bigint;

-- name: edge
-- How far the next due rows of a place, an open queue or its retries, all belong to lanes that are shut, so that claims may
-- begin behind them before they are moved.  $1 queue, $7 gate, $2 class, beginning after ($3 seconds since 1970, $4 id), $5
-- gates of lanes of which this daemon may start nothing more, $6 rows looked at.  The last such row; whether one of another lane comes next; how many were looked
-- at in all.  Nothing, if no lane is shut or no row is due.
-- index jobs_ready, at most $6 entries twice: the first to the next row of another lane, which is where most looks end; the
-- second, to the end, tells no lanes
with shut as materialized (
    select gate from job_holds where gate like 'lane:%'
    union all
    select unnest($5::text[])
)
(
    select date_part('epoch', run_at) as at, id - 1 as last_id, true as other, 0 as looked
    from (select run_at, id, 'lane:' || job_lane(kind, args, lane) as lane_gate from jobs
          where exists (select from shut)
            and queue = $1 and gate = $7 and priority = $2 and state = 'ready'
            and (run_at, id) > (to_timestamp($3::float8), $4::bigint) and run_at <= now()
          order by run_at, id limit $6) as head
    where lane_gate is null or lane_gate not in (select gate from shut)
    order by run_at, id limit 1
)
union all
(
    select date_part('epoch', run_at), id, false, (count(*) over ())::int
    from (select run_at, id from jobs
          where exists (select from shut)
            and queue = $1 and gate = $7 and priority = $2 and state = 'ready'
            and (run_at, id) > (to_timestamp($3::float8), $4::bigint) and run_at <= now()
          order by run_at, id limit $6) as head
    order by run_at desc, id desc limit 1
)
limit 1;

-- name: park
-- Of the next due rows of a place, move those whose lanes are shut to the gates of these: what a claim does with the rows it
-- meets, for many at once, and without keeping the others from the claims.
-- $1 queue, $7 gate, $2 class, beginning after ($3 seconds since 1970, $4 id), $5 gates of lanes of which this daemon may start
-- nothing more, $6 rows looked at.  How many were, and the last; for each gate, how many went there and when the first is due.
-- index jobs_ready; rows are locked and moved by their place, passing by those that a claim has; width_bucket finds an id's
-- gate by bisection, since telling it once more would be as dear as the move
with shut as materialized (
    select gate from job_holds where gate like 'lane:%'
    union all
    select unnest($5::text[])
), head as materialized (
    select ctid as place, id, run_at, 'lane:' || job_lane(kind, args, lane) as lane_gate from jobs
    where exists (select from shut)
      and queue = $1 and gate = $7 and priority = $2 and state = 'ready'
      and (run_at, id) > (to_timestamp($3::float8), $4::bigint) and run_at <= now()
    order by run_at, id limit $6
), due as materialized (
    select place, id, lane_gate from head where lane_gate in (select gate from shut)
), met as materialized (
    select ctid as place from jobs
    where ctid = any (array(select place from due)) -- a row that has changed since stands elsewhere
    for update skip locked
), moved as (
    update jobs
    set gate = (array(select lane_gate from due order by id))[width_bucket(id, array(select id from due order by id))]
    where ctid = any (array(select place from met))
    returning gate, run_at
)
select (select count(*) from head)::int, date_part('epoch', last.run_at), last.id, went.gate, went.n, went.first_at
from (select run_at, id from head order by run_at desc, id desc limit 1) as last
left join (select gate, count(*)::int as n, date_part('epoch', min(run_at)) as first_at from moved group by gate) as went on true;

-- name: holds
-- What holds these lanes, after the probes that are due have been given to this worker: those of lanes that nobody paused
-- and whose every hold has ended.  Its holds become one, prolonged for the probe; of two workers that ask at once the second
-- finds it locked, or sees that it has not ended.  For each: $1 gate, $2 seconds for its probe; $3 worker, $4 probes at most.
-- index job_holds_pkey; locks the first hold of each lane that is due, skipping those that others are about to write
with asked as materialized (
    select gate, probe_s from unnest($1::text[], $2::float8[]) as asked (gate, probe_s)
), due as materialized (
    select hold.gate, hold.cause, asked.probe_s
    from asked join job_holds hold using (gate)
    where hold.cause <> 'pause' and hold.until <= now()
      and not exists (
          select from job_holds other
          where other.gate = hold.gate
            and (other.cause = 'pause' or other.until is null or other.until > now() or other.cause < hold.cause))
    order by hold.until limit $4
    for update of hold skip locked
), won as (
    update job_holds hold
    set until = now() + probe_s * interval '1 second', detail = coalesce(detail, '{}') || jsonb_build_object('probe', $3::bigint)
    from due where hold.gate = due.gate and hold.cause = due.cause
    returning hold.gate, hold.cause, hold.detail
), merged as (
    delete from job_holds hold using won where hold.gate = won.gate and hold.cause not in ('pause', won.cause)
)
select gate, cause, asked.probe_s as left_s, coalesce((detail ->> 'rung')::int, 0) as rung, true as won
from won join asked using (gate)
union all
select gate, cause, date_part('epoch', hold.until - now()), coalesce((detail ->> 'rung')::int, 0), false
from asked join job_holds hold using (gate)
where not exists (select from won where won.gate = hold.gate);

-- name: open
-- The probes of this worker went well.  A hold that was written anew meanwhile stays.  $1 gates, $2 worker.
-- index job_holds_pkey
delete from job_holds where gate = any ($1::text[]) and cause <> 'pause' and (detail ->> 'probe')::bigint = $2
returning gate;

-- name: give_up
-- These probes told nothing: whoever asks next may make another.  $1 gates, $2 worker.  index job_holds_pkey
update job_holds set until = now(), detail = detail - 'probe'
where gate = any ($1::text[]) and (detail ->> 'probe')::bigint = $2;

-- name: forget
-- Lanes that could have been probed for $1 seconds and have no row that wants to be: at most $2.
delete from job_holds
where (gate, cause) in (
    select gate, cause from job_holds
    where gate like 'lane:%' and cause <> 'pause' and until < now() - $1::float8 * interval '1 second'
    order by gate, cause limit $2 for update skip locked);

-- name: list
-- Lanes that are closed or paused, of at most $1, with who probes.  index job_workers_pkey
select hold.gate, hold.cause, hold.since, hold.until, hold.actor, hold.reason,
       coalesce((hold.detail ->> 'rung')::int, 0) as rung, worker.name as probe
from job_holds hold
left join job_workers worker on worker.id = (hold.detail ->> 'probe')::bigint
where hold.gate like 'lane:%'
order by hold.gate, hold.cause limit $1;

-- name: of_job
-- What holds the lane of live row $1, but for a pause.  index jobs_pkey, job_holds_pkey, job_workers_pkey
select substr(hold.gate, 6) as lane, hold.cause, hold.since, hold.until, hold.actor, hold.reason,
       coalesce((hold.detail ->> 'rung')::int, 0) as rung, worker.name as probe
from jobs
join job_holds hold on hold.gate = 'lane:' || job_lane(jobs.kind, jobs.args, jobs.lane) or hold.gate = jobs.gate
left join job_workers worker on worker.id = (hold.detail ->> 'probe')::bigint
where jobs.id = $1 and hold.gate like 'lane:%' and hold.cause <> 'pause'
order by hold.cause;
