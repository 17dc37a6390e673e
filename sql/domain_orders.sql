-- Registered domains as operators see and change them: `jobsd domains`.

-- name: domains
-- At most 1,000 domains by name, from $1 on; of organisation $2 and in state $3 (null: any).  index domains_name for an
-- organisation's; all others are read whole, a tenth of a second for a million
select id, domain, org_id, state, since, checked_at, next_check_at, conclusion
from domains
where domain >= $1 and ($2::text is null or coalesce(org_id, '') = $2) and ($3::text is null or state = $3)
order by domain, org_id nulls first limit 1000;

-- name: domain
-- The domain $2 of organisation $1, and the job that is to check it, or does.  index domains_name, jobs_unique_key
select d.id, d.domain, d.org_id, d.state, d.since, d.verified_at, d.created_at, d.challenge, d.token, d.expect::text, d.contact,
       d.queue, d.checks, d.checked_at, d.next_check_at, d.verdict, d.conclusion, d.records::text, d.name_servers, d.slot, d.unsure,
       d.mismatch_since, d.mismatch_at, d.mismatch_s, d.noticed, d.noticed_at, d.warned_at, now() as now,
       (select id from jobs where kind = 'domain_check' and unique_key = d.id::text and unique_key is not null) as job_id
from domains as d
where coalesce(d.org_id, '') = coalesce($1::text, '') and d.domain = $2;

-- name: history
-- The last $3 checks of domain $1 of which table domains has id $2.  index domain_checks_domain of each partition, merged
select ended_at, verdict, state_before, state_after, conclusion
from domain_checks
where domain = $1 and domain_id = $2
order by ended_at desc limit $3;

-- name: add
-- Register domain $2 of organisation $1, with records $3, contact $4, label $5 of its token and token $6 (null: as by default).  One
-- that has expired, or whose records are others, begins anew.  index domains_name
insert into domains as known (org_id, domain, expect, contact, challenge, token)
values ($1, $2, coalesce($3::text::jsonb, '[]'), $4, coalesce($5, '_jobsd-challenge'), coalesce($6, domain_token()))
on conflict (coalesce(org_id, ''), domain) do update
set expect = case when $3::text is null then known.expect else excluded.expect end, contact = coalesce($4, known.contact),
    challenge = coalesce($5, known.challenge), token = coalesce($6, known.token),
    state = case known.state when 'expired' then 'pending' else known.state end,
    since = case known.state when 'expired' then now() else known.since end,
    next_check_at = case known.state when 'expired' then now() else known.next_check_at end
returning id, domain, org_id, challenge, token, expect::text, state, xmax = 0 as is_new;

-- name: check
-- A check of domain $2 of organisation $1, now; its job.  Null: there is no such domain.  index domains_name
insert into jobs (kind, args, org_id, queue)
select 'domain_check', jsonb_build_object('domain', domain), org_id, queue
from domains where coalesce(org_id, '') = coalesce($1::text, '') and domain = $2
returning id;

-- name: remove
-- Nobody looks at domain $2 of organisation $1 any more.  index domains_name
delete from domains where coalesce(org_id, '') = coalesce($1::text, '') and domain = $2
returning id;
