-- Registered domains: what a check of one needs, and the plan that brings the checks.

-- name: turn
-- The domain $2 of organisation $1 (and, if it is given, with id $3), and its turn for job $4: one check at a time, and none within
-- $5 seconds of the last one's begin.  A job that begins again has its turn still; one that was lost gives it up after $6
-- seconds.  `taken`: it is this job's; else `under_way` and `asked_s`: whether somebody checks it now, and since when.  One who
-- could have had it by what this statement sees of the row, and has not, came in the same moment as another who has it now.
-- index domains_name
with found as materialized (
    select id from domains
    where coalesce(org_id, '') = coalesce($1::text, '') and domain = $2 and ($3::bigint is null or id = $3)
), mine as (
    update domains as d set asked_at = now(), asked_by = $4
    from found
    where d.id = found.id
      and (asked_by = $4 or asked_by is null and (asked_at is null or asked_at <= now() - $5::float8 * interval '1 second')
           or asked_at <= now() - $6::float8 * interval '1 second')
    returning d.id
)
select d.id, d.domain, d.token, d.challenge, d.expect::text, d.contact, d.state, d.since, d.verified_at, d.checked_at, d.checks,
       d.next_check_at, d.slot, d.verdict, d.conclusion, d.records::text, d.name_servers, d.unsure, d.mismatch_since, d.mismatch_at,
       d.mismatch_s, d.noticed, d.noticed_at, d.warned_at,
       d.asked_by is not null or mine.id is null and coalesce(d.asked_at <= now() - $5::float8 * interval '1 second', true) as under_way,
       date_part('epoch', now() - d.asked_at) as asked_s, mine.id is not null as taken, now() as now
from found join domains as d using (id) left join mine using (id);

-- name: plan
-- A job for each domain that is due, the oldest first, and no more than $1 a minute over all daemons: what is allowed grows at a
-- seventieth of that a second, up to ten seconds' worth, so that no 60 seconds have more.  Whoever finds the clock locked leaves
-- it to the other.  A domain whose job is still there gets no second one, and is due again in a minute; it is asked for before the
-- insert, which would wait for the job's end while that waits for the domain.  Should a job come to nothing, its domain is due
-- again in an hour.  Nobody waits for what is planned, so its class is behind that of checks on demand: those of domains in use last.
-- Returns how many, and for how many seconds the oldest of all that were due had been.
-- index domains_due, domains_pkey, jobs_unique_key; the clock's only row
with clock as materialized (
    select greatest(planned_at, now() - interval '10 seconds') as spent from domain_plan for update skip locked
), allowed as materialized (
    select floor($1::float8 / 70 * date_part('epoch', now() - spent))::int as rows from clock
), due as materialized (
    select id, org_id, domain, queue, state, next_check_at from domains
    where next_check_at <= now()
    order by next_check_at limit greatest(coalesce((select rows from allowed), 0), 0) for no key update skip locked
), free as materialized (
    select *, (select true from jobs where kind = 'domain_check' and unique_key = due.id::text and unique_key is not null) is null as is_free
    from due
), moved as (
    update domains as d set next_check_at = now() + case when free.is_free then interval '1 hour' else interval '1 minute' end
    from free where d.id = free.id
), made as (
    insert into jobs (kind, args, queue, org_id, priority, unique_key)
    select 'domain_check', jsonb_build_object('domain', domain, 'id', id), queue, org_id,
           case state when 'verified' then 4 else 3 end, id::text
    from free where is_free order by next_check_at
    on conflict do nothing
), spent as (
    update domain_plan set planned_at = clock.spent + (select count(*) from due) * 70 / $1::float8 * interval '1 second'
    from clock where exists (select from due)
)
select (select count(*) from free where is_free)::int as planned,
       (select date_part('epoch', now() - next_check_at) from domains where next_check_at <= now() order by next_check_at limit 1) as late_s;

-- name: states
-- How many domains are in each state: counted up to $1 of each; of verified ones, where there are more, what Postgres' statistics
-- leave beside the others.  index domains_state, at most $1 entries of it for each state; locks nothing
with counted as materialized (
    select s.state, (select count(*) from (
               -- as a range, so that the order leads to the index also where half of the table has that state
               select from domains as d where d.state >= s.state and d.state <= s.state order by d.state limit $1) as few) as n
    from unnest(array['pending', 'verified', 'degraded', 'failed', 'expired']) as s (state)
)
select state,
       case when state = 'verified' and n = $1
            then greatest(n, (select reltuples::bigint from pg_class where oid = 'domains'::regclass)
                             - (select sum(n)::bigint from counted where state <> 'verified'))
            else n end as n
from counted;
