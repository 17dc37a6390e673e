-- What the e-mail channel asks of its own log.

-- name: delivered
-- What came of each recipient of a job so far.  Rows are written in the commit that ends an attempt, so a retry sees all
-- of its past.  $1 job id
-- index email_deliveries_job of each partition.  At most 500 recipients that settle once; only soft and deferred rows
-- repeat, and they are not asked for, so the limit cuts nothing off: 500 × (two unknown + suppressed + one other).
select recipient, outcome from email_deliveries
where job_id = $1 and outcome in ('delivered', 'hard', 'unknown', 'suppressed', 'bounced')
limit 2000;

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

-- name: suppressed
-- Which of $2 recipients, in lower case, are not written to by $1 organisations ("": none) in mails of $3 lists ("": of none), and
-- why; and of whom there is something that a delivered mail takes back.  index email_suppressions_recipient, probed twice for each
select asked.org_id, asked.recipient, asked.list,
       max(found.reason) filter (where found.expires_at is null or found.expires_at > now()) as reason,
       bool_or(found.reason in ('bounce', 'mailbox_full')) as heals
from unnest($1::text[], $2::text[], $3::text[]) as asked (org_id, recipient, list)
cross join lateral (
    select reason, expires_at from email_suppressions as any_mail
    where coalesce(any_mail.org_id, '') = asked.org_id and any_mail.recipient = asked.recipient
      and coalesce(any_mail.list, '') = ''
    union all
    select reason, expires_at from email_suppressions as of_list
    where coalesce(of_list.org_id, '') = asked.org_id and of_list.recipient = asked.recipient
      and coalesce(of_list.list, '') = asked.list and asked.list <> ''
) as found
group by asked.org_id, asked.recipient, asked.list;

-- name: handed_over
-- Whom a relay took job $1 for, and of which organisation it is.  index email_deliveries_job of each partition
select distinct recipient, org_id from email_deliveries
where job_id = $1 and outcome in ('delivered', 'unknown', 'bounced')
limit 500;

-- name: bounced
-- Of job $1 it came back from $2 recipients, as the log has them, with $3 codes, $4 statuses and $5 words; returned: those of whom
-- that was not known.  In the transaction that ends the row that says so: told twice it is written once.
-- index email_deliveries_job of each partition
with told as materialized (
    select * from unnest($2::text[], $3::text[], $4::text[], $5::text[]) as told (recipient, code, status, words)
), changed as (
    update email_deliveries as d
    set outcome = 'bounced', code = told.code, enhanced = told.status, reply = told.words, bounced_at = now()
    from told
    where d.job_id = $1 and d.recipient = told.recipient and d.outcome in ('delivered', 'unknown')
    returning d.recipient
)
select distinct recipient from changed;

-- name: unsubscribe
-- $2 recipient of $1 organisation wants no more mail of $3 list; a row that is there and holds stays.
-- index email_suppressions_recipient
insert into email_suppressions as known (org_id, recipient, list, reason) values ($1, $2, $3, 'unsubscribed')
on conflict (coalesce(org_id, ''), recipient, coalesce(list, '')) do update
set reason = 'unsubscribed', expires_at = null, detail = null, updated_at = now()
where known.expires_at is not null;

-- name: forget_suppressions
-- Suppressions that ended $1 seconds ago; $2 rows at most.  index email_suppressions_expired; the locked rows by their place
delete from email_suppressions
where ctid = any (array(
    select ctid from email_suppressions where expires_at < now() - $1::float8 * interval '1 second'
    order by expires_at limit $2 for update skip locked));

-- name: digest_take
-- Items of digest $2, of organisation $3, become those of job $1: the oldest, $4 at most and $5 bytes of them, or those that an
-- earlier attempt of it took.  Only by the attempt with $6 fence and $7 worker; for another one there is one row without an id.
-- `more`: some are left.  Locks the job's row, so that its rescue waits, and the items.
-- indexes jobs_pkey, email_digest_items_job, email_digest_items_open
with ours as materialized (
    select id from jobs where id = $1 and fence = $6 and worker_id = $7 for no key update
), before as materialized (
    select id, item from email_digest_items where job_id = $1 and exists (select from ours) order by id limit 1000
), waiting as materialized (
    select id, octet_length(item::text) as bytes from email_digest_items
    where digest = $2 and job_id is null and org_id is not distinct from $3
      and exists (select from ours) and not exists (select from before)
    order by id limit $4
    for update skip locked
), fits as materialized (
    select id from (select id, sum(bytes) over (order by id) as so_far, row_number() over (order by id) as n from waiting) as w
    where so_far <= $5 or n = 1
), mine as (
    update email_digest_items set job_id = $1 where id = any (array(select id from fits)) returning id, item
)
select id, item::text, exists (select from email_digest_items as later
                               where later.digest = $2 and later.job_id is null and later.id > (select max(id) from fits)) as more
from (select id, item from before union all select id, item from mine) as taken
union all
select null, null, false where not exists (select from ours)
order by id;

-- name: digest_rest
-- What is left of digest $1 has a job too: another full mail at once, or, unless one waits, which is locked, the rest.
-- indexes email_digest_items_open, jobs_unique_key
with first as materialized (
    select * from email_digest_items where digest = $1 and job_id is null order by id limit 1
), enough as materialized (
    select count(*) = $2::int as is_full
    from (select from email_digest_items where digest = $1 and job_id is null limit $2::int) as left_over
), window_job as materialized (
    select id from jobs where kind = 'email' and unique_key = 'digest:' || $1::text and state = 'ready' for share
)
select email_digest_job(digest, org_id, queue, priority, email, $2::int, now(), case when is_full then ':full' else ':rest' end)
from first cross join enough
where is_full or not exists (select from window_job);

-- name: digest_seen
-- What digest_take would take, and nothing is changed.  $1 job, $2 digest, $3 organisation, $4 items, $5 is not looked at
-- indexes email_digest_items_job, email_digest_items_open
(select id, item::text, false as more from email_digest_items where job_id = $1 order by id limit 1000)
union all
(select id, item::text, false from email_digest_items
 where digest = $2 and job_id is null and org_id is not distinct from $3 and $5::int > 0 order by id limit $4);

-- name: forget_digest_items
-- Items older than $1 seconds, of which no job will tell any more: of a dead letter that nobody retried, of a job that was cancelled;
-- $2 rows at most.  indexes email_digest_items_age, jobs_pkey, jobs_unique_key; the locked rows by their place
delete from email_digest_items
where ctid = any (array(
    select ctid from email_digest_items as item
    where created_at < now() - $1::float8 * interval '1 second'
      and not exists (select from jobs where jobs.id = item.job_id)
      and not exists (select from jobs
                      where kind = 'email' and item.job_id is null
                        and unique_key in ('digest:' || item.digest, 'digest:' || item.digest || ':full',
                                           'digest:' || item.digest || ':rest'))
    order by created_at limit $2 for update skip locked));
