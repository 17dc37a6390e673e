-- The e-mail channel as operators see and change it: `jobsd email`.

-- name: templates
-- At most 1,000 templates by name, from name $1 on; those of organisation $2, and those for all (null: every one).
-- index email_templates_name; few enough to be read whole
select name, org_id, subject, text is not null as text, html is not null as html, sender, reply_to, updated_at
from email_templates
where name >= $1 and ($2::text is null or org_id is null or org_id = $2)
order by name, org_id nulls first limit 1000;

-- name: suppressions
-- At most 1,000 suppressions from recipient $1 on; of organisation $2 and of recipient $3 (null: any), and unless $4 only those that
-- hold.  index email_suppressions_recipient; few enough to be read whole
select recipient, org_id, list, reason, detail, expires_at, created_at, updated_at
from email_suppressions
where recipient >= $1 and ($2::text is null or org_id = $2) and ($3::text is null or recipient = $3)
  and ($4 or expires_at is null or expires_at > now())
order by recipient, org_id nulls first, list nulls first limit 1000;

-- name: suppress
-- $1 organisation, $2 recipient, $3 list, $4 reason, $5 detail, $6 seconds (null: until it is lifted).  What was there is replaced.
-- index email_suppressions_recipient
insert into email_suppressions (org_id, recipient, list, reason, detail, expires_at)
values ($1, $2, $3, $4, $5, now() + $6::float8 * interval '1 second')
on conflict (coalesce(org_id, ''), recipient, coalesce(list, '')) do update
set reason = excluded.reason, detail = excluded.detail, expires_at = excluded.expires_at, bounces = '{}', updated_at = now()
returning id;

-- name: lift
-- Recipient $2 of organisation $1 is written to again: in mails of list $3, or, if it is null, whatever suppressed him.
-- index email_suppressions_recipient
with gone as (
    delete from email_suppressions
    where coalesce(org_id, '') = coalesce($1::text, '') and recipient = $2 and ($3::text is null or list = $3)
    returning id
)
select count(*)::int from gone having count(*) > 0;
