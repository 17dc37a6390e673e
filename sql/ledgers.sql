-- Channel logs: each statement takes one JSON array of rows.  The daemon adds job_id, attempt, org_id, correlation_id and
-- retry_in_s (seconds until the next attempt, null when there is none) to what the channel recorded.

-- name: webhook_deliveries
-- json, not jsonb, which would be built to be taken apart at once: two thirds of the CPU.
insert into webhook_deliveries (job_id, attempt, org_id, correlation_id, endpoint, endpoint_id, event, event_id, url,
    replay_id, outcome, code, status, address, phases, duration_ms, request_bytes, response_headers, response_body,
    response_truncated, started_at, next_attempt_at)
select job_id, attempt, org_id, correlation_id, endpoint, endpoint_id, event, event_id, url, replay_id, outcome, code, status,
    address, phases, duration_ms, request_bytes, response_headers, response_body, coalesce(response_truncated, false),
    to_timestamp(began_at), now() + retry_in_s * interval '1 second'
from json_to_recordset($1::text::json) as r (job_id bigint, attempt smallint, org_id text, correlation_id text,
    endpoint text, endpoint_id bigint, event text, event_id bigint, replay_id bigint, url text, outcome text, code text, status int,
    address text, phases jsonb, duration_ms real, request_bytes int, response_headers jsonb, response_body text,
    response_truncated boolean, began_at float8, retry_in_s float8);

-- name: email_deliveries
insert into email_deliveries (job_id, attempt, org_id, correlation_id, recipient, relay, message_id, outcome, code, smtp_code,
    enhanced, reply, phase, duration_ms, possible_duplicate, next_attempt_at)
select job_id, attempt, org_id, correlation_id, recipient, relay, message_id, outcome, code, smtp_code,
    enhanced, reply, phase, duration_ms, coalesce(possible_duplicate, false), now() + retry_in_s * interval '1 second'
from jsonb_to_recordset($1::text::jsonb) as r (job_id bigint, attempt smallint, org_id text, correlation_id text,
    recipient text, relay text, message_id text, outcome text, code text, smtp_code int, enhanced text, reply text,
    phase text, duration_ms real, possible_duplicate boolean, retry_in_s float8);

-- name: notification_deliveries
insert into notification_deliveries (job_id, attempt, org_id, correlation_id, channel, recipient, service, message_id, outcome,
    code, status, reply, parts, phases, duration_ms, request_bytes, possible_duplicate, started_at, next_attempt_at)
select job_id, attempt, org_id, correlation_id, channel, recipient, service, message_id, outcome, code, status, reply, parts,
    phases, duration_ms, request_bytes, coalesce(possible_duplicate, false), to_timestamp(began_at),
    now() + retry_in_s * interval '1 second'
from json_to_recordset($1::text::json) as r (job_id bigint, attempt smallint, org_id text, correlation_id text, channel text,
    recipient text, service text, message_id text, outcome text, code text, status int, reply text, parts smallint, phases jsonb,
    duration_ms real, request_bytes int, possible_duplicate boolean, began_at float8, retry_in_s float8);

-- name: push_gone
-- No log of its own: an event for whoever keeps subscriptions, the operator and the row's organisation, in the commit that
-- buries the row.  Its deliveries are new rows of `jobs`, for which nothing is waited for.
insert into webhook_events (org_id, event, payload, correlation_id)
select org, 'jobsd.push_gone',
    json_build_object('endpoint', endpoint, 'status', status, 'job_id', job_id, 'org_id', org_id), correlation_id
from json_to_recordset($1::text::json) as r (job_id bigint, org_id text, correlation_id text, endpoint text, status int),
    unnest(array[null, org_id]) with ordinality as to_whom (org, n)
where org is not null or n = 1;

-- name: domain_checks
insert into domain_checks (job_id, attempt, org_id, correlation_id, domain, verdict, records, servers, duration_ms,
    next_attempt_at)
select job_id, attempt, org_id, correlation_id, domain, verdict, records, servers, duration_ms,
    now() + retry_in_s * interval '1 second'
from jsonb_to_recordset($1::text::jsonb) as r (job_id bigint, attempt smallint, org_id text, correlation_id text,
    domain text, verdict text, records jsonb, servers jsonb, duration_ms real, retry_in_s float8);

-- name: domains
-- What checks came to for registered domains: their rows, the log, and notices, in the commit that ends the attempt.
-- index domains_pkey
select domains_said($1::text::jsonb);

-- name: monitor_checks
-- What checks found; states of monitors, and whom to tell, follow in the commit that ends the attempt.  index monitors_pkey
select monitor_checks_said($1::text::jsonb);

-- name: job_logs
-- Lines that jobs logged.  One that may have more than `keep` of them in the table loses its oldest.  The time is the
-- daemon's, but of today, for which a partition is there.
-- index job_logs_job of each partition, for the jobs that have too many
with said as materialized (
    select * from jsonb_to_recordset($1::text::jsonb) as r (job_id bigint, attempt smallint, fence int, n int, org_id text,
        said_at float8, level text, event text, fields text, keep int)
), full_ones as (
    select job_id, greatest(min(keep) - count(*), 0) as room from said where keep is not null group by job_id
), gone as (
    delete from job_logs
    using full_ones cross join lateral (
        select fence, n from job_logs older where older.job_id = full_ones.job_id
        order by fence desc, n desc offset full_ones.room limit 1
    ) as first_out
    where job_logs.job_id = full_ones.job_id and (job_logs.fence, job_logs.n) <= (first_out.fence, first_out.n)
)
insert into job_logs (job_id, attempt, fence, n, org_id, at, level, event, fields)
select job_id, attempt, fence, n, org_id, least(greatest(to_timestamp(said_at), date_trunc('day', now(), 'UTC')), now()), level,
    event, fields::jsonb
from said;

-- name: email_forwards
-- What attempts came to for forwards: their bytes go, and whoever should know is told, in the commit that ends the attempt.
-- index email_forwards_pkey
select email_forwards_said($1::text::jsonb);

-- name: email_suppressions
-- What attempts, and bounces, have said of recipients: `bounced`, `full` (it counts when nobody tries again: `is_final`, or the
-- attempt was the last) or `delivered`, which takes back what the other two did.  The first and second bounce in 30 days suppress
-- for a day, the third until it is lifted.  What people said (manual, unsubscribed, complaint) is not touched while it holds.
-- Recipients in order, so that two daemons do not wait for each other.  index email_suppressions_recipient
with said as materialized (
    select distinct on (coalesce(org_id, ''), recipient) org_id, recipient, said, detail
    from jsonb_to_recordset($1::text::jsonb)
        as r (org_id text, recipient text, said text, detail text, is_final boolean, retry_in_s float8)
    where said <> 'full' or is_final or retry_in_s is null
    order by coalesce(org_id, ''), recipient, said = 'delivered', said = 'full'
), lifted as (
    delete from email_suppressions
    where ctid = any (array(
        select known.ctid
        from said
        join email_suppressions as known
            on coalesce(known.org_id, '') = coalesce(said.org_id, '') and known.recipient = said.recipient
               and coalesce(known.list, '') = ''
        where said.said = 'delivered' and known.reason in ('bounce', 'mailbox_full')))
)
insert into email_suppressions as known (org_id, recipient, reason, detail, bounces, expires_at)
select org_id, recipient, case said when 'bounced' then 'bounce' else 'mailbox_full' end, detail,
    case said when 'bounced' then array[now()] else '{}' end, now() + interval '24 hours'
from said where said <> 'delivered'
order by coalesce(org_id, ''), recipient
on conflict (coalesce(org_id, ''), recipient, coalesce(list, '')) do update
set (reason, detail, bounces, expires_at, updated_at) = (
    select case when known.reason = 'bounce' and (known.expires_at is null or known.expires_at > now()) then 'bounce'
                else excluded.reason end,
           excluded.detail, now_known[cardinality(now_known) - 2:],
           case when known.expires_at is null or cardinality(now_known) >= 3 then null
                else greatest(known.expires_at, excluded.expires_at) end,
           now()
    from (select array(select at from unnest(known.bounces) as at where at > now() - interval '30 days' order by at)
                 || excluded.bounces as now_known) as counted)
where known.reason in ('bounce', 'mailbox_full') or known.expires_at <= now();

-- name: email_digest_items
-- Items that a mail has told of.  index email_digest_items_pkey
delete from email_digest_items
where id = any (array(
    select jsonb_array_elements_text(ids)::bigint from jsonb_to_recordset($1::text::jsonb) as r (ids jsonb)));
