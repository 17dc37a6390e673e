-- Token buckets and places shared by all daemons.

-- name: take
-- $1 worker, and for each bucket: $2 name, $3 key, $4 wanted, $5 seconds a token, $6 burst, $7 places.
-- index job_limits_pkey, job_limit_holds_pkey; locks the buckets' rows in order of (name, key)
select granted, retry_s from job_limits_take($1, $2, $3, $4, $5, $6, $7);

-- name: give
-- $1 worker, and for each bucket: $2 name, $3 key, $4 places given back, $5 seconds' worth of tokens given back
select job_limits_give($1, $2, $3, $4, $5);
