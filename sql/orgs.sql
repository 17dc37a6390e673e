-- Weights of organisations: what fair shares go by.

-- name: weigh
-- Give an organisation a weight.  $1 organisation, $2 weight.  No row returned: it had that one.  index job_orgs_pkey
insert into job_orgs as known (org_id, weight)
select $1, $2::real
where coalesce((select weight from job_orgs where org_id = $1), 1) <> $2::real
on conflict (org_id) do update set weight = excluded.weight
returning weight::float8;

-- name: weight
-- $1 organisation.  index job_orgs_pkey
select weight::float8 from job_orgs where org_id = $1;

-- name: weights
-- Those that weigh more or less than 1, heaviest first, of at most 1,000.
select org_id as name, weight::float8 from job_orgs where weight <> 1 order by weight desc, org_id limit 1000;
