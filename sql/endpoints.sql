-- Endpoints as operators see and change them: `jobsd endpoints`.

-- name: find
-- The id of an endpoint.  $1 its id, or $2 the organisation (null: none) and $3 the name.
-- index webhook_endpoints_pkey, webhook_endpoints_name
select id from webhook_endpoints
where $1::bigint is not null and id = $1
   or $1::bigint is null and coalesce(org_id, '') = coalesce($2::text, '') and name = $3::text;

-- name: list
-- At most 1,000 endpoints from id $1 on, of organisation $2 and in state $3 (null: any).  index webhook_endpoints_pkey
select id, name, org_id, url, events, state, profile, rate, burst, concurrency, ordering, disabled_at, disabled_by,
       disabled_reason, failing_since
from webhook_endpoints
where id >= $1::bigint and ($2::text is null or org_id = $2) and ($3::text is null or state = $3)
order by id limit 1000;

-- name: show
-- Endpoint $1 whole, and its secrets without their text, newest first.  index webhook_endpoints_pkey, webhook_secrets_endpoint
select e.*, (select coalesce(json_agg(json_build_object('id', s.id, 'created_at', s.created_at, 'expires_at', s.expires_at)
                                      order by s.id desc), '[]')::text
             from webhook_secrets s
             where s.endpoint_id = e.id and (s.expires_at is null or s.expires_at > now())) as secrets
from webhook_endpoints e where id = $1;

-- name: add
-- $1 a JSON object of columns; those it leaves out have their defaults, said again here
insert into webhook_endpoints (org_id, name, url, events, headers, signing, profile, timeout, rate, burst, concurrency, ordering,
    gone, client_certificate, template, content_type, contact)
select org_id, name, url, events, headers, signing, profile, timeout, rate, burst, concurrency, ordering, gone,
    client_certificate, template, content_type, contact
from jsonb_populate_record(null::webhook_endpoints,
    '{"events": ["*"], "headers": {}, "signing": ["standard"], "profile": "default", "ordering": "none", "gone": "confirm"}'
    || $1::text::jsonb)
returning id;

-- name: edit
-- Endpoint $1 gets what the JSON object $2 says, where null takes a value away.  index webhook_endpoints_pkey
update webhook_endpoints as e
set (name, url, events, headers, signing, profile, timeout, rate, burst, concurrency, ordering, gone, client_certificate,
     template, content_type, contact)
    = (select p.name, p.url, p.events, p.headers, p.signing, p.profile, p.timeout, p.rate, p.burst, p.concurrency, p.ordering,
              p.gone, p.client_certificate, p.template, p.content_type, p.contact
       from jsonb_populate_record(e, $2::text::jsonb) as p)
where id = $1
returning id;

-- name: disable
-- No row returned: it is disabled already.  $1 endpoint, $2 actor, $3 reason.  index webhook_endpoints_pkey
update webhook_endpoints set state = 'disabled', disabled_by = $2, disabled_reason = $3
where id = $1 and state = 'enabled' returning id;

-- name: enable
-- No row returned: it is enabled already.  $1 endpoint.  index webhook_endpoints_pkey
update webhook_endpoints set state = 'enabled' where id = $1 and state = 'disabled' returning id;

-- name: rotate
-- $1 endpoint, $2 secret (null: a new one), $3 seconds for which the older ones go on.  index webhook_secrets_endpoint
select webhook_rotate_secret($1, $2, $3::float8 * interval '1 second');

-- name: test
-- A delivery to endpoint $1 alone.  $2 event, $3 payload
insert into jobs (kind, args, org_id)
select 'webhook', jsonb_build_object('endpoint', id, 'event', $2::text, 'payload', $3::text::jsonb), org_id
from webhook_endpoints where id = $1
returning id;

-- name: deliveries
-- Attempts at endpoint $1 that ended from $2 on and before $3, newest first; of the newest $4 those with one of outcomes $5 and an
-- event that matches $6 (null: any); $7 rows at most.  index webhook_deliveries_endpoint of each partition, merged
select case when event_id is null then 'msg_' || job_id else 'msg_e' || event_id end as webhook_id, job_id, attempt, event, event_id,
       replay_id, outcome, code, status, started_at, ended_at, next_attempt_at, duration_ms, phases::text as phases, url, address,
       request_bytes, response_headers::text as response_headers, response_body, response_truncated
from (select * from webhook_deliveries
      where endpoint_id = $1 and ended_at >= $2::timestamptz and ended_at < $3::timestamptz
      order by ended_at desc, job_id desc limit $4) as newest
where ($5::text[] is null or outcome = any ($5)) and ($6::text is null or $6 = any (webhook_patterns(event)))
order by ended_at desc, job_id desc limit $7;

-- name: deliveries_of
-- What came of event $2 at endpoint $1, newest first, as `deliveries` tells it; $3 rows at most.
-- index webhook_deliveries_event of each partition
select 'msg_e' || event_id as webhook_id, job_id, attempt, event, event_id, replay_id, outcome, code, status, started_at, ended_at,
       next_attempt_at, duration_ms, phases::text as phases, url, address, request_bytes,
       response_headers::text as response_headers, response_body, response_truncated
from webhook_deliveries
where endpoint_id = $1 and event_id = $2
order by ended_at desc limit $3;

-- name: events_of
-- The events that jobs $2 deliver or delivered to endpoint $1.  index jobs_pkey; webhook_deliveries_job of each partition
select id as job_id, (args ->> 'event_id')::bigint as event_id from jobs
where id = any ($2::bigint[]) and kind = 'webhook' and args -> 'endpoint' = to_jsonb($1::bigint)
  and (args ->> 'event_id') ~ '^[0-9]{1,18}$'
union
select job_id, event_id from webhook_deliveries where job_id = any ($2::bigint[]) and endpoint_id = $1 and event_id is not null;

-- name: replay
-- A replay to endpoint $1, with args $2; no row: another one is under way.  index jobs_unique_key
insert into jobs (kind, args, org_id, unique_key)
select 'webhook_replay', $2::text::jsonb || jsonb_build_object('endpoint', id), org_id, concat(org_id, ':replay:', id)
from webhook_endpoints where id = $1
on conflict do nothing
returning id;

-- name: replaying
-- The replay to endpoint $1 that is under way.  index jobs_unique_key
select jobs.id from jobs
join webhook_endpoints as endpoint on endpoint.id = $1
where kind = 'webhook_replay' and unique_key = concat(endpoint.org_id, ':replay:', endpoint.id);

-- name: tried
-- The last attempt at job $1.  index webhook_deliveries_job of each partition
select outcome, code, status, duration_ms, address from webhook_deliveries where job_id = $1 order by ended_at desc limit 1;
