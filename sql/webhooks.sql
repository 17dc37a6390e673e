-- What a delivery needs of its endpoint and its event: asked for many at once, by the daemons.

-- name: endpoints
-- Endpoints $1 with their live secrets, newest first: at most ten each, as [text, seconds since 1970 or null].
-- index webhook_endpoints_pkey, webhook_secrets_endpoint
select e.id, e.org_id, e.name, e.url, e.headers::text as headers, e.signing, date_part('epoch', e.timeout) as timeout_s, e.gone,
       e.client_certificate, e.template, e.content_type, e.state = 'enabled' as enabled, s.secrets,
       date_part('epoch', e.failing_since) as failing_since, date_part('epoch', e.warned_at) as warned_at,
       e.failures >= 20 and cardinality(e.failed_messages) >= 3 as is_well_known, e.gone_at is not null as is_doubted
from webhook_endpoints e
cross join lateral (
    select coalesce(json_agg(json_build_array(secret, date_part('epoch', expires_at)) order by id desc), '[]')::text as secrets
    from (select id, secret, expires_at from webhook_secrets
          where endpoint_id = e.id and (expires_at is null or expires_at > now()) order by id desc limit 10) as live
) as s
where e.id = any ($1::bigint[]);

-- name: events
-- Events $1, which hardly ever are older than a day: of the partitions of $2 days.  Each costs a probe for every id.
-- index webhook_events_by_id of each partition
select id, org_id, event, payload::text as payload, body, content_type from webhook_events
where id = any ($1::bigint[]) and created_at >= now() - $2::int * interval '1 day';

-- name: terms
-- What endpoints $1 ask of whoever claims their rows: how many, how often, and when again.  index webhook_endpoints_pkey
select id, profile, rate, burst, concurrency, ordering from webhook_endpoints where id = any ($1::bigint[]);

-- name: profile
-- The endpoint that live row $1 goes to, and its profile.  index jobs_pkey, webhook_endpoints_pkey
select e.id, e.profile
from jobs j
join webhook_endpoints e on e.id = substring(job_lane(j.kind, j.args, j.lane) from '^endpoint:([0-9]{1,18})$')::bigint
where j.id = $1;

-- name: said
-- What attempts have said of endpoints: $1 as webhook_endpoints_said takes it, $2 its patience in seconds (null: for ever).
-- index webhook_endpoints_pkey
select told_id, told_org, told_name, told_what, told_why
from webhook_endpoints_said($1::text::jsonb, $2::float8 * interval '1 second');
