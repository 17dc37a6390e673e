-- The e-mail channel as operators see and change it: `jobsd email`.

-- name: templates
-- At most 1,000 templates by name, from name $1 on; those of organisation $2, and those for all (null: every one).
-- index email_templates_name; few enough to be read whole
select name, org_id, subject, text is not null as text, html is not null as html, sender, reply_to, updated_at
from email_templates
where name >= $1 and ($2::text is null or org_id is null or org_id = $2)
order by name, org_id nulls first limit 1000;
