-- Events that go to an endpoint once more: `jobsd endpoints replay`, and jobs of kind webhook_replay.  Pages along a key, each a
-- bounded number of rows to look at; of what a page shows only what is `wanted` goes.

-- In subqueries below `(select true …)` and not `exists`, of which Postgres may make a hash of the whole table.

-- name: whom
-- The endpoint $1, or the one of organisation $2 (null: none) named $3; the time, and since when there is a delivery log.
-- index webhook_endpoints_pkey, webhook_endpoints_name; the catalogue
select id, org_id, name, state = 'enabled' as enabled, events, created_at, now() as now,
       (select min(to_date(right(child.relname, 8), 'YYYYMMDD'))::timestamp at time zone 'UTC'
        from pg_inherits as heir join pg_class as child on child.oid = heir.inhrelid
        where heir.inhparent = 'webhook_deliveries'::regclass and child.relname ~ '_\d{8}$') as log_from
from webhook_endpoints
where $1::bigint is not null and id = $1
   or $1::bigint is null and coalesce(org_id, '') = coalesce($2::text, '') and name = $3::text;

-- name: so_far
-- How far replay $1 came, as it wrote itself.  index jobs_pkey
select progress::text from jobs where id = $1;

-- name: missing
-- The next events of an organisation, and whether they are wanted: those that match, and were never delivered to the endpoint,
-- nor is a delivery of those that were tried under way.  $1 endpoint, $2 its organisation ('': none), $3 its patterns, $4 one more
-- pattern (null: any), $5 from, $6 until, $7 the day of $5, $8 after this id, $9 rows to look at.
-- index webhook_events_org of each partition, merged; webhook_deliveries_event of the partitions from the event's day to that of its
-- delivery, and of all others for what was not delivered; jobs_pkey
with page as materialized (
    select id, event, created_at,
           created_at >= $5::timestamptz and $3::text[] && webhook_patterns(event)
               and ($4::text is null or $4 = any (webhook_patterns(event))) as meant
    from (select id, event, created_at from webhook_events
          where coalesce(org_id, '') = $2 and id > $8 and created_at >= $7::timestamptz and created_at < $6::timestamptz
          order by id limit $9) as next
)
select page.id, page.event, page.created_at as at, page.id as event_id, log.outcome, log.code, log.outcome is not null as tried,
       page.meant and sent.ok is null and log.live is not true as wanted
from page
cross join lateral (
    select (select true from webhook_deliveries as d
            where page.meant and d.event_id = page.id and d.endpoint_id = $1 and d.outcome = 'ok' and d.ended_at >= page.created_at
            limit 1) as ok
    offset 0
) as sent
cross join lateral (
    select bool_or((select true from jobs where jobs.id = d.job_id)) as live,
           (array_agg(d.outcome order by d.ended_at desc))[1] as outcome, (array_agg(d.code order by d.ended_at desc))[1] as code
    from webhook_deliveries as d
    where page.meant and sent.ok is null and d.event_id = page.id and d.endpoint_id = $1 and d.ended_at >= page.created_at
) as log
order by page.id;

-- name: logged
-- The next rows of an endpoint's delivery log, and whether their events are wanted: at the last row of each, if no delivery is
-- under way, those with one of the outcomes, or those that never went well.  $1 endpoint, $2 outcomes (null: never well), $3 a
-- pattern (null: any), $4 from, $5 until, $6 and $7 after this (ended_at, job), $8 rows to look at.
-- index webhook_deliveries_endpoint of each partition, merged; for rows that may be wanted webhook_deliveries_event; jobs_pkey
with page as materialized (
    select job_id, event, event_id, ended_at, outcome, code,
           event_id is not null and ($3::text is null or $3 = any (webhook_patterns(event)))
               and case when $2::text[] is null then outcome <> 'ok' else outcome = any ($2::text[]) end as meant
    from (select job_id, event, event_id, ended_at, outcome, code from webhook_deliveries
          where endpoint_id = $1 and ended_at >= $4::timestamptz and ended_at < $5::timestamptz
            and (ended_at, job_id) > ($6::timestamptz, $7::bigint)
          order by ended_at, job_id limit $8) as next
)
select page.job_id as id, page.event, page.ended_at as at, page.event_id, page.outcome, page.code, true as tried,
       page.meant and later.one is null and log.live is not true and ($2::text[] is not null or log.ok is not true) as wanted
from page
cross join lateral (
    select (select true from webhook_deliveries as d
            where page.meant and d.event_id = page.event_id and d.endpoint_id = $1 and d.ended_at >= page.ended_at
              and (d.ended_at, d.job_id) > (page.ended_at, page.job_id) and d.ended_at < $5::timestamptz
            limit 1) as one
    offset 0
) as later
cross join lateral (
    select bool_or(d.outcome = 'ok') as ok, bool_or((select true from jobs where jobs.id = d.job_id)) as live
    from webhook_deliveries as d
    where page.meant and later.one is null and d.event_id = page.event_id and d.endpoint_id = $1
) as log
order by page.ended_at, page.job_id;

-- name: named
-- Those of the events $2 that organisation $1 ('': none) has, after id $3.  index webhook_events_by_id of each partition
select id, event, created_at as at, id as event_id, null::text as outcome, null::text as code, true as tried, true as wanted
from webhook_events
where id = any ($2::bigint[]) and id > $3 and coalesce(org_id, '') = $1
order by id;

-- name: waiting
-- Of $3 live rows after id $2: how many there were, the last id, and the events that are to go to endpoint $1.  index jobs_pkey
select count(*)::int as looked, max(id) as last,
       coalesce(array_agg((args ->> 'event_id')::bigint) filter (
           where kind = 'webhook' and (lane is null or lane = concat('endpoint:', $1::bigint))
             and args -> 'endpoint' = to_jsonb($1::bigint) and (args ->> 'event_id') ~ '^[0-9]{1,18}$'), '{}') as events
from (select id, kind, lane, args from jobs where id > $2 order by id limit $3) as page;

-- name: enqueue
-- One delivery each of events $2 to endpoint $1, in this order, the first due at $4 and each $5 seconds after the one before; as the
-- fan-out makes them, with replay $3 in the args.  How many were added: an event that another replay has under way stays out.
-- An expires_at that has passed would end it at once.  index webhook_endpoints_pkey, webhook_events_by_id of each partition,
-- jobs_unique_key
with endpoint as materialized (
    select id, org_id, ordering from webhook_endpoints where id = $1
), added as (
    insert into jobs (kind, args, queue, org_id, priority, run_at, expires_at, ordering_key, lane, correlation_id, traceparent,
                      actor_id, project_id, unique_key)
    select 'webhook', jsonb_build_object('endpoint', endpoint.id, 'event_id', event.id, 'replay', $3::bigint), event.queue,
           event.org_id, event.priority, due.at, case when event.expires_at > due.at then event.expires_at end,
           case when endpoint.ordering <> 'none' then 'endpoint:' || endpoint.id || ':' || event.ordering_key end,
           'endpoint:' || endpoint.id, event.correlation_id, event.traceparent, event.actor_id, event.project_id,
           concat(event.org_id, ':replay:', endpoint.id, ':', event.id)
    from unnest($2::bigint[]) with ordinality as meant (id, n)
    join webhook_events as event on event.id = meant.id
    join endpoint on coalesce(endpoint.org_id, '') = coalesce(event.org_id, '')
    cross join lateral (select $4::timestamptz + (meant.n - 1) * $5::float8 * interval '1 second' as at) as due
    order by meant.n
    on conflict do nothing
    returning id
)
select count(*)::int from added;

-- name: note
-- How far replay $1 came is written in the transaction that inserts, and only by the attempt ($2 fence, $3 worker) that has the row:
-- so a replay that is killed goes on where it was, and one that has lost its row adds nothing.  index jobs_pkey
update jobs set progress = $4::text::jsonb
where id = $1 and fence = $2 and worker_id = $3 and state = 'running'
returning id;
