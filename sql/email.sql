-- What the e-mail channel asks of its own log.

-- name: delivered
-- What came of each recipient of a job so far.  Rows are written in the commit that ends an attempt, so a retry sees all
-- of its past.  $1 job id
-- index email_deliveries_job of each partition.  At most 500 recipients that settle once; only soft and deferred rows
-- repeat, and they are not asked for, so the limit cuts nothing off: 500 × (two unknown + one other).
select recipient, outcome from email_deliveries
where job_id = $1 and outcome in ('delivered', 'hard', 'unknown')
limit 1500;

-- name: templates
-- For each of $1 organisations ("": none) with $2 names: its own template, or the one for all.  index email_templates_name,
-- probed twice for each
select asked.org_id as asked_org, found.org_id, found.name, found.subject, found.text, found.html, found.sender, found.reply_to
from unnest($1::text[], $2::text[]) as asked (org_id, name)
cross join lateral (
    select * from email_templates as own where coalesce(own.org_id, '') = asked.org_id and own.name = asked.name
    union all
    select * from email_templates as common
    where coalesce(common.org_id, '') = '' and common.name = asked.name and asked.org_id <> ''
    limit 1
) as found;
