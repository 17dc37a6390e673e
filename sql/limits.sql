-- Token buckets and places shared by all daemons.

-- name: take
-- $1 worker, and for each bucket: $2 name, $3 key, $4 wanted, $5 seconds a token, $6 burst, $7 places.
-- index job_limits_pkey, job_limit_holds_pkey; locks the buckets' rows in order of (name, key)
select granted, retry_s from job_limits_take($1, $2, $3, $4, $5, $6, $7);

-- name: true_up
-- After a call whose answer was lost: the places worker $1 holds are these and no others.  For each: $2 name, $3 key, $4 held.
-- index job_limit_holds_pkey (its rows are few: one for each bucket and worker)
update job_limit_holds as h
set held = coalesce((select t.held from unnest($2::text[], $3::text[], $4::int[]) as t (name, key, held)
                     where t.name = h.name and t.key = h.key), 0)
where worker_id = $1;

-- name: give
-- $1 worker, and for each bucket: $2 name, $3 key, $4 places given back, $5 seconds' worth of tokens given back
select job_limits_give($1, $2, $3, $4, $5);
