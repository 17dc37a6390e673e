-- How much of what is allowed has been used in each period that goes on, and which thresholds that is beyond.  An event is
-- inserted where its table has none for this period and threshold; what is to be told is inserted with it, in one statement:
-- so it is told exactly when there is an event, and there is one, whoever looks at the same time.

-- name: moment
c.{column};

-- name: local_moment
(c.{column})::timestamp at time zone {zone}::text;

-- name: since
c.{ends} > {since};

-- name: after
-- Instead of `since`: of two lower bounds Postgres begins at the first, and reads anew what all pages before had.
(c.{ends}, c.{key}) > ({last_end}::text::{ends_type}, {last_key}::text::{key_type});

-- name: copied
, c.{column} as {name};

-- name: owner
, c.{column} as owner;

-- name: address
, c.{column}::text as address;

-- name: organisation
, c.{column}::text as org;

-- name: page
-- The periods that have begun and have not been over for longer than {grace}, by their end.
page as materialized (
    select c.{key} as k, c.{ends} as raw_end, {starts} as starts, {ended} as ends, {allowed} as allowed {copied}
    from {cycles} as c
    where {beyond} and c.{starts_column} <= {until}
    order by c.{ends}, c.{key}
    limit {limit}::int
);

-- name: instant
{value}::timestamptz;

-- name: local
({value}::timestamptz at time zone {zone}::text);

-- name: own
-- What a period has used stands in its own row.
, c.{column} as own;

-- name: used_own
p.own::numeric;

-- name: added_up
-- Rides the index of {usage} by owner and time.
(select sum(u.{used}) from {usage} as u where {within})::numeric;

-- name: within
u.{by} = p.owner and u.{time} >= {starts} and u.{time} < {ends};

-- name: between
-- The same, where there is that index.  Of a range of time between two values that it does not know Postgres expects next to
-- nothing, and Postgres 18 would look for each day by itself in an index by time and owner; with its end said in rows it
-- expects a third of all days, and takes the index by owner.
u.{by} = p.owner and u.{time} >= {starts} and (u.{by}, u.{time}) < (p.owner, {ends});

-- name: starts
p.starts;

-- name: ends
p.ends;

-- name: at_local
({time} at time zone {zone}::text);

-- name: crossed
-- All in whole numbers and microseconds, so that nothing is rounded: used / allowed is at least threshold / 100, and where it
-- slides at least that share of it which is over, or {from_share}.  Of a period without an end no share can be over: it counts
-- whole.  Who may use nothing, and did, is at 100 % of it.
looked as materialized (
    select p.*, coalesce({used}, 0) as used,
           case when endless then 1 else extract(epoch from p.ends - p.starts)::numeric end as length,
           case when endless then 1 else extract(epoch from least({now}::timestamptz, p.ends) - p.starts)::numeric end as elapsed
    from page as p cross join lateral (select not (isfinite(p.starts) and isfinite(p.ends)) as endless) as e
    where p.ends > p.starts
), crossed as materialized (
    select l.*, t.threshold,
           case when l.allowed::numeric > 0 then floor(l.used * 100 / l.allowed::numeric) else 100 end as percent
    from looked as l cross join unnest({thresholds}::int[]) as t (threshold)
    where l.used > 0 and l.used * 100 * l.length >= l.allowed::numeric * t.threshold
        * case when {sliding}::boolean and t.threshold < 100 then greatest(l.elapsed, l.length * {from_share}::text::numeric)
               else l.length end
);

-- name: emit
with {page}, {crossed}, events as (
    insert into {events} as e ({columns})
    select {values} from crossed as c order by c.k, c.threshold
    on conflict ({unique}) do nothing
    returning e.{event_key} as k, e.{event_threshold} as threshold
), new as materialized (
    select c.* from crossed as c join events as e on e.k = c.k and e.threshold = c.threshold
) {beside}
select (select count(*)::int from page) as scanned, {last},
       (select count(*)::int from events) as events, (select count(*)::int from crossed) as crossed {counted};

-- name: last
(select array[raw_end::text, k::text] from page order by raw_end desc, k desc limit 1) as last;

-- name: notify
, told as (
    insert into {table} ({columns}) select {values} from new as c order by c.k, c.threshold
    returning 1
);

-- name: notified
, (select count(*)::int from told) as notified;

-- name: mail
-- One mail for each period, of the highest threshold that is new, where nobody has been told of a higher one before (as where
-- the config has got another threshold since).  Rides the unique index of {events}.
, mailed as (
    insert into jobs (kind, queue, priority, org_id, args)
    select 'email', {queue}::text, {priority}::int::smallint, {org}, {args}::text::jsonb || jsonb_build_object(
        'to', c.address, 'subject', {subject_said}, 'text', {text_said})
    from (select distinct on (k) * from new order by k, threshold desc) as c
    where c.address is not null and not exists (
        select from {events} as e where e.{event_key} = c.k and e.{event_threshold} > c.threshold)
    returning 1
);

-- name: said
-- The text of the config, with its words in braces filled in.
replace(replace(replace(replace({text}::text, concat('{', 'threshold', '}'), c.threshold::text),
    concat('{', 'used', '}'), trim_scale(c.used)::text), concat('{', 'allowed', '}'), c.allowed::text),
    concat('{', 'percent', '}'), c.percent::text);

-- name: mailed
, (select count(*)::int from mailed) as mailed;

-- name: of_nobody
null::text;

-- name: of_org
c.org::text;

-- name: would
-- Which events there would be, and some of them.
with {page}, {crossed}, new as (
    select c.* from crossed as c
    where not exists (select from {events} as e where e.{event_key} = c.k and e.{event_threshold} = c.threshold)
)
select (select count(*)::int from page) as scanned, {last},
       (select count(*)::int from new) as events,
       (select coalesce(json_agg(s), '[]')::text from (
           select k as cycle, threshold, used, allowed from new order by k, threshold limit 5) as s) as sample;

-- name: as
{value}::{type};

-- name: copy
c.{name};

-- name: constant
{value}::text::{type};

-- name: threshold
c.threshold;

-- name: used
c.used;

-- name: allowed
c.allowed;

-- name: elapsed
-- Percent of the period.
floor(c.elapsed * 100 / c.length);

-- name: percent
c.percent;

-- name: now
{now}::timestamptz;

-- name: event
jsonb_build_object('cycle', c.k, 'threshold', c.threshold, 'used', c.used, 'allowed', c.allowed);
