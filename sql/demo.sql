-- What `jobsd demo` asks about the rows it has inserted.

-- name: standing
-- Where rows $1 stand, wherever they are, and why: the verdict of a DNS check, the code of a dead letter, the gate of a
-- row that waits.  index jobs_pkey, job_history_id of each partition
select id, state, attempt, coalesce(result ->> 'verdict', case when state = 'dead' then last_error ->> 'code' else reason end) as why
from job_status where id = any ($1::bigint[]);

-- name: results
-- What those of rows $1 came to that are done.  index job_history_id of each partition
select kind, result from job_history where id = any ($1::bigint[]) and state = 'done' and result is not null;

-- name: progress
-- How far those of rows $1 are that run and have said so.  index jobs_pkey
select kind, progress from jobs where id = any ($1::bigint[]) and progress is not null order by id;

-- name: backlog
-- How many rows are not finished, counted up to $1.
select count(*)::int from (select from jobs limit $1) as unfinished;

-- name: endpoint_secrets
-- The demo's secret for each of its endpoints that has none.  index webhook_endpoints_name, webhook_secrets_endpoint
select webhook_rotate_secret(endpoint.id, 'secret://demo') from webhook_endpoints endpoint
where coalesce(endpoint.org_id, '') = 'acme' and endpoint.name in ('crm', 'ledger', 'stock')
  and not exists (select from webhook_secrets where endpoint_id = endpoint.id and expires_at is null);

-- name: endpoint_lanes
-- index webhook_endpoints_name
select name, 'endpoint:' || id as lane from webhook_endpoints
where coalesce(org_id, '') = 'acme' and name in ('crm', 'ledger', 'stock') order by id;

-- name: newest
-- index jobs_pkey
select coalesce(max(id), 0) from jobs;

-- name: deliveries_of
-- The deliveries of events $2, inserted after row $1.  index jobs_pkey
select id from jobs where id > $1 and kind = 'webhook' and (args ->> 'event_id')::bigint = any ($2::bigint[]) order by id limit 1000;

-- name: standing_of_endpoints
-- How deliveries $1 stand, for each endpoint.  index jobs_pkey, job_history_id and webhook_deliveries_job of each partition
select endpoint.name, count(*)::int as total,
       count(*) filter (where delivery.state = 'done')::int as done,
       count(*) filter (where delivery.state = 'ready' and delivery.attempt = 0)::int as untried,
       count(*) filter (where delivery.state = 'ready' and delivery.attempt = 0 and delivery.reason = 'lane:' || delivery.lane)::int as held,
       count(*) filter (where delivery.state = 'done' and delivery.attempt = 1)::int as at_first,
       sum((select count(*) from webhook_deliveries sent where sent.job_id = delivery.id))::int as sent
from job_status delivery
join webhook_endpoints endpoint on delivery.lane = 'endpoint:' || endpoint.id
where delivery.id = any ($1::bigint[])
group by endpoint.id, endpoint.name order by endpoint.id;

-- name: closings
-- How often in a row the lane at gate $1 was closed; 0 if it is open.  index job_holds_pkey
select coalesce(max((detail ->> 'rung')::int) + 1, 0) from job_holds where gate = $1 and cause = 'breaker';

-- name: replayed
-- How many deliveries replay $1 asked for to endpoint $2 (null while it is under way), and how many went well.
-- index jobs_pkey, job_history_id and webhook_deliveries_endpoint of each partition
select (select (result ->> 'enqueued')::int from job_status where id = $1) as asked,
       (select count(*)::int from webhook_deliveries
        where endpoint_id = $2 and ended_at > now() - interval '1 hour' and replay_id = $1 and outcome = 'ok') as well;

-- name: forget_suppressions
-- What an earlier start has learnt of mailboxes that are not there: they are shown again.  index email_suppressions_recipient
delete from email_suppressions
where coalesce(org_id, '') in ('', 'acme') and recipient in ('nobody@shop.example', 'gone@shop.example');

-- name: ended
-- How job $1 ended; no row before it has.  index job_history_id of each partition
select state, attempt, last_error ->> 'code' as code, result from job_history where id = $1;

-- name: put_off
-- Whether job $1 was tried, wherever it is now.  index jobs_pkey, job_history_id of each partition
select state <> 'running' and attempt > 0 from job_status where id = $1;

-- name: mails_since
-- Mails of acme that were inserted after row $1 and are not sent yet.  index jobs_pkey
select id from jobs where id > $1 and kind = 'email' and org_id = 'acme' order by id limit 100;

-- name: forwarded
-- Whether forward $1 was delivered.  index email_forwards_pkey
select state = 'delivered' from email_forwards where id = $1;

-- name: forget_domain
-- The domain $1 that an earlier start has registered for acme: it is shown again.  index domains_name
delete from domains where coalesce(org_id, '') = 'acme' and domain = $1;

-- name: domain
-- How often acme's domain $1 was checked, and what came of it.  index domains_name
select state, checks, conclusion from domains where coalesce(org_id, '') = 'acme' and domain = $1;
