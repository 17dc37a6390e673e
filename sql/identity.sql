-- Order and keys, looked after by the daemons: what an end left shut is opened, and what has blocked for too long steps aside.

-- name: open_heads
-- Open what is next in each key that has rows at the gate 'order' and none running.  An end opens its successor itself; this is
-- for the one that could not, since another session held the successor for too long.  $1 and $2 the kind and key after which
-- to begin, $3 keys at most; returns the keys it looked at, in order, and how many rows of each may go.
-- index jobs_in_order, walked loosely: one probe a key.  Locked rows are skipped.
with recursive waiting as (
    (select kind, ordering_key from jobs
     where gate = 'order' and (kind, ordering_key) > ($1::text, $2::text)
     order by kind, ordering_key limit 1)
    union all
    select next.kind, next.ordering_key
    from waiting
    cross join lateral (
        select kind, ordering_key from jobs
        where gate = 'order' and (kind, ordering_key) > (waiting.kind, waiting.ordering_key)
        order by kind, ordering_key limit 1
    ) as next
), listed as (
    select kind, ordering_key from waiting limit $3
)
select kind, ordering_key, (select count(*) from job_next(kind, ordering_key, false))::int as opened from listed;

-- name: step_aside
-- Let pass those who wait behind a row that failed and has blocked them for as long as its config allows; the row itself is
-- tried again as before.  $1 rows at most.  index jobs_blocking, jobs_pkey
with late as materialized (
    select id from jobs where blocks_until <= now() and not aside and state = 'ready'
    order by blocks_until limit $1 for update skip locked
), stepped as (
    update jobs set aside = true where id = any (array(select id from late)) returning kind, ordering_key
)
select (select count(*) from job_next(kind, ordering_key, false))::int as opened from stepped;

-- name: forget_debounces
-- Debounced keys first seen more than $1 seconds ago; the next insert makes them anew.  $2 rows at most.
-- index job_debounces_age; the locked rows by their place
delete from job_debounces
where ctid = any (array(
    select ctid from job_debounces where created_at < now() - $1::float8 * interval '1 second'
    order by created_at limit $2 for update skip locked));
