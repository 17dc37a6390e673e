-- What ended: how long it is kept, and everything in numbers.  What the numbers cost does not grow with the tables.

-- name: sweep_known
-- Enter the partitions of $1 into the books of rules $2, each to be looked at when the first of its rows can be due: $3
-- seconds after its day began.  Nothing is written for those that are there.  catalogue only; index job_sweeps_pkey
insert into job_sweeps (partition, rules, next_at)
select child.relname, $2,
       to_date(right(child.relname, 8), 'YYYYMMDD')::timestamp at time zone 'UTC' + $3::float8 * interval '1 second'
from pg_inherits as heir
join pg_class as child on child.oid = heir.inhrelid
where heir.inhparent = $1::text::regclass and child.relname ~ '_\d{8}$'
  and not exists (select from job_sweeps where partition = child.relname and rules = $2)
order by child.relname
on conflict do nothing;

-- name: sweep_take
-- A partition of $1 in which something is due by rules $2, the oldest first; its row of the books stays locked until the
-- transaction ends, and others take the next.  Reads one row of the books for each partition of these rules.
select book.partition, book.page, now() as now,
       to_date(right(book.partition, 8), 'YYYYMMDD')::timestamp at time zone 'UTC' + interval '1 day' as day_end,
       pg_relation_size(child.oid) / current_setting('block_size')::int as pages,
       case when isfinite(book.due_at) then book.due_at end as due_at
from job_sweeps as book
join pg_class as child on child.oid = to_regclass(quote_ident(book.partition))
where book.rules = $2 and book.next_at <= now() and book.partition ~ ('^' || $1::text || '_\d{8}$')
order by book.partition limit 1
for update of book skip locked;

-- name: survey
-- Rows of a partition by queue and outcome, and the oldest of each.  $1 partition, $2 and $3 its columns of outcome and
-- time, $4 from page, $5 pages.  Reads those pages
select queue, outcome_is as outcome, oldest from job_partition_survey($1, $2, $3, $4, $5);

-- name: sweep
-- Delete rows of the same pages.  $1 to $5 as above; $6 queues, $7 outcomes, $8 ended before; $9 rows at most.
-- Rows that somebody has locked are skipped
select job_partition_sweep($1, $2, $3, $4, $5, $6::text[], $7::text[], $8::timestamptz[], $9);

-- name: sweep_note
-- How far a sweep came.  $1 partition, $2 rules, $3 page, $4 when the first of the rows it left is due (null: none will be).
-- index job_sweeps_pkey
update job_sweeps set page = $3, due_at = coalesce($4::timestamptz, 'infinity') where partition = $1 and rules = $2;

-- name: sweep_rest
-- A sweep is over: the next one is due at $3 (null: never).  $1 partition, $2 rules.  index job_sweeps_pkey
update job_sweeps set page = 0, due_at = 'infinity', next_at = coalesce($3::timestamptz, 'infinity')
where partition = $1 and rules = $2;

-- name: defaults
-- Rows in default partitions, counted up to 10,000 each, and how many days from today on have a partition: (table, rows,
-- days).  A default partition is empty, or nearly: reads at most 10,000 rows of each
select parent.relname as parent, coalesce(found.strays, 0) as rows, days.n as days
from (values ('job_history'), ('job_attempts'), ('webhook_deliveries'), ('email_deliveries'), ('domain_checks'),
             ('job_logs'), ('webhook_events'))
    as parent (relname)
left join job_strays(10000) as found on found.parent = parent.relname
cross join lateral (
    select coalesce(min(n), 61) as n from generate_series(0, 60) as n
    where to_regclass(quote_ident(parent.relname || to_char((now() at time zone 'UTC')::date + n, '_YYYYMMDD'))) is null
) as days;

-- name: waiting
-- Ready rows of each (queue, gate): due and to come, each counted up to $1 in each class of priority, and whether that bound
-- was reached; the age of the oldest due.  For at most $2 pairs.
-- index jobs_ready, walked loosely: at most 8 × $1 entries for a pair
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
       coalesce(max(due.age), 0)::float8 as oldest_s, bool_or(due.n >= $1) as more_ready,
       bool_or(later.n >= $1) as more_scheduled
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

-- name: sample
-- Ready rows on $1 pages of jobs, by queue and gate, and how many rows each stands for: where `waiting` stopped counting.
-- The pages lie as far apart as they can, from a place picked at random: rows that were inserted together lie together, and
-- `tablesample` was 10 % off for them in the middle and 53 % at worst.  Postgres' own statistics are older, know little of
-- rare queues, and nothing of the clock.  Reads $1 pages; no index
with size as materialized (
    select random() as start, greatest(1, pg_relation_size('jobs') / current_setting('block_size')::int) as pages
), picked as materialized (
    select floor((n + start) * pages / least(pages, $1::int))::bigint as page, pages / least(pages, $1::int)::float8 as each
    from size, generate_series(0, least(pages, $1::int) - 1) as n
)
select queue, gate, count(*) filter (where run_at <= now()) as ready, count(*) filter (where run_at > now()) as scheduled,
       max(each) as each
from picked
cross join lateral ( -- `offset 0` keeps the planner from reading the table whole for a join
    select queue, gate, run_at, state from jobs
    where ctid >= format('(%s,0)', page)::tid and ctid < format('(%s,0)', page + 1)::tid offset 0
) as found
where state = 'ready'
group by queue, gate;

-- name: running
-- Running rows by queue, as the daemons that live said at their last heartbeat.  One row for each daemon and queue
select load.key as queue, sum(load.value::bigint)::bigint as running
from job_workers, jsonb_each_text(job_workers.running) as load
where lease_until > now()
group by load.key;

-- name: dead
-- Dead letters by queue, of the newest $1.  index job_history_dead of each partition, merged backwards
select queue, count(*) as dead
from (select queue from job_history where state = 'dead' order by finished_at desc limit $1) as bounded
group by queue;

-- name: dead_about
-- How many dead letters there may be in all: entries of the partitions' indexes of them when they were last vacuumed or
-- analyzed.  catalogue only
select coalesce(sum(greatest(heir.reltuples, 0)), 0)::float8
from pg_inherits join pg_class as heir on heir.oid = inhrelid
where inhparent = 'job_history_dead'::regclass;

-- name: ended
-- Jobs that ended since $1 seconds ago, in whole hours: (queue, outcome, n).  index job_tallies_pkey: one row for each hour,
-- queue, outcome and daemon
select queue, outcome, sum(n)::bigint as n from job_tallies
where hour > now() - $1::float8 * interval '1 second'
group by queue, outcome;

-- name: tally
-- A daemon's totals of one hour.  Totals, so that it may be written again when an answer was lost.
-- $1 worker, and for each: $2 hour (seconds since 1970), $3 queue, $4 outcome, $5 total.  index job_tallies_pkey
insert into job_tallies as old (hour, queue, outcome, worker_id, n)
select to_timestamp(total.hour), total.queue, total.outcome, $1, total.n
from unnest($2::float8[], $3::text[], $4::text[], $5::bigint[]) as total (hour, queue, outcome, n)
order by 1, 2, 3
on conflict (hour, queue, outcome, worker_id) do update set n = excluded.n where old.n < excluded.n;

-- name: fold
-- Totals of hours that are a day old into one row for each hour, queue and outcome; at most $1.  Hours that were not folded
-- in their time stay as they are.  index job_tallies_pkey
with gone as (
    delete from job_tallies
    where ctid = any (array(
        select ctid from job_tallies where worker_id <> 0 and hour between now() - interval '50 hours' and now() - interval '25 hours'
        order by hour limit $1 for update skip locked))
    returning hour, queue, outcome, n
), folded as (
    insert into job_tallies as old (hour, queue, outcome, worker_id, n)
    select hour, queue, outcome, 0, sum(n) from gone group by hour, queue, outcome order by 1, 2, 3
    on conflict (hour, queue, outcome, worker_id) do update set n = old.n + excluded.n
)
select count(*) from gone;

-- name: forget_tallies
-- Totals of hours over $1 seconds old; $2 rows at most.  index job_tallies_pkey
delete from job_tallies
where ctid = any (array(
    select ctid from job_tallies where hour < now() - $1::float8 * interval '1 second'
    order by hour limit $2 for update skip locked))
returning 1;
