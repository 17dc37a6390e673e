-- Token buckets and places shared by all daemons; what the functions do stands in migration 0010.

-- name: lease
-- $1 worker, and for each bucket: $2 name, $3 key, $4 tokens and $5 places wanted, $6 seconds a token, $7 burst, $8 places;
-- $9 seconds ahead of need.  index job_limits_pkey, job_limit_holds_pkey; locks the buckets' rows in order of (name, key)
select n, places_got, rivals, at_s, froms, counts, late_s, lot, retry_s
from job_limits_lease($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: give_back
-- $1 worker, and for each piece: $2 name, $3 key, $4 places, $5 seconds a token, $6 burst, $7 time of the first token and $8
-- how many from there on, or $9 lot, $10 how many of it were used and $11 when the last was.
-- index job_limits_pkey, job_limit_holds_pkey; locks the buckets' rows in order of (name, key)
select job_limits_return($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);

-- name: true_up
-- After a call whose answer was lost: the places worker $1 holds are these and no others.  For each: $2 name, $3 key, $4 held.
-- index job_limit_holds_pkey (its rows are few: one for each bucket and worker)
update job_limit_holds as h
set held = coalesce((select t.held from unnest($2::text[], $3::text[], $4::int[]) as t (name, key, held)
                     where t.name = h.name and t.key = h.key), 0)
where worker_id = $1;
