-- Token buckets and places shared by all daemons; what the functions do stands in migrations 0010 and 0025.

-- name: lease
-- $1 worker, and for each bucket: $2 name, $3 key, $4 tokens and $5 places wanted, $6 seconds a token, $7 burst, $8 places,
-- $9 of so many a day when it begins (seconds after midnight UTC; -1: any 24 hours; null: not of a day); $10 seconds ahead of
-- need.  index job_limits_pkey, job_limit_holds_pkey; locks the buckets' rows in order of (name, key)
select n, places_got, rivals, at_s, froms, counts, late_s, lot, retry_s, step_s, share, used
from job_limits_lease($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: give_back
-- $1 worker, and for each piece: $2 name, $3 key, $4 places, $5 seconds a token, $6 burst, $7 when its day begins, $8 how far
-- apart these tokens are, $9 time of the first and $10 how many from there on, $11 lot or slot of a day, $12 how many of a lot
-- were used and $13 when the last was.
-- index job_limits_pkey, job_limit_holds_pkey; locks the buckets' rows in order of (name, key)
select job_limits_return($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13);

-- name: slow
-- The other side says that bucket ($1, $2) is too fast: half of what it lends now, at least a hundredth, and what it holds is
-- gone.  Told of something sent $5 seconds ago: if it was slowed since, that says nothing new.  $3 seconds a token, $4 burst.
-- Returns the part of its rate that it lends from now on.  index job_limits_pkey; locks that row
update job_limits
set share = greatest(job_limit_share(share, slowed_at, clock_timestamp()) / 2, 0.01), slowed_at = clock_timestamp(),
    full_at = greatest(full_at, clock_timestamp() + $3::float8 * $4::int * interval '1 second'
        / greatest(job_limit_share(share, slowed_at, clock_timestamp()) / 2, 0.01)),
    lot_before = greatest(lot_before, clock_timestamp() + $3::float8 * $4::int * interval '1 second'
        / greatest(job_limit_share(share, slowed_at, clock_timestamp()) / 2, 0.01)),
    spare_s = '{}', spare_n = '{}'
where name = $1 and key = $2 and coalesce(slowed_at < clock_timestamp() - $5::float8 * interval '1 second', true)
returning share;

-- name: true_up
-- After a call whose answer was lost: the places worker $1 holds are these and no others.  For each: $2 name, $3 key, $4 held.
-- index job_limit_holds_pkey (its rows are few: one for each bucket and worker)
update job_limit_holds as h
set held = coalesce((select t.held from unnest($2::text[], $3::text[], $4::int[]) as t (name, key, held)
                     where t.name = h.name and t.key = h.key), 0)
where worker_id = $1;
