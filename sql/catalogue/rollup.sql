-- Rows of one table added up in another, bucket by bucket: which buckets rows have come for, and what these come to now.

-- name: lands
-- What else a page has of each row: the values of {by} and its bucket, as texts, and when the bucket begins.
, array[{by}]::text[] as owner, ({bucket})::text as bucket, {start} as start;

-- name: touched
-- Every bucket that a row of the page lies in, once: arrays of texts.  Rows without an owner or a time have none; those of
-- buckets that began before {first} are only counted.
with {scan}
select scanned, last, at,
       (select coalesce(jsonb_agg(distinct to_jsonb(array_append(owner, bucket))), '[]')::text from scanned
        where start >= {first}::timestamptz and array_position(owner, null) is null) as touched,
       (select count(*)::int from scanned where start < {first}::timestamptz) as passed
from page;

-- name: oldest
-- When the bucket of a page's oldest row begins, or {slack} before; and not before {first}.
with {scan}
select scanned, last, at,
       (select greatest({first}::timestamptz, min(start) - {slack}::text::interval) from scanned where isfinite(start)) as oldest
from page;

-- name: instant_bucket
-- Of a moment, as a date or as the hands of a clock.
date_trunc({unit}::text, {time} at time zone {zone}::text)::{type};

-- name: instant_bucket_as_instant
-- As a moment itself: so the hour that comes twice in autumn is two.
date_trunc({unit}::text, {time}, {zone}::text)::{type};

-- name: local_bucket
-- Of a time or a date without a zone, taken as it stands.
date_trunc({unit}::text, {time}::timestamp)::{type};

-- name: local_bucket_as_instant
(date_trunc({unit}::text, {time}::timestamp) at time zone {zone}::text)::{type};

-- name: start
-- When a bucket begins, as a moment.
(({bucket})::timestamp at time zone {zone}::text);

-- name: start_as_instant
({bucket})::timestamptz;

-- name: within
-- The rows near a bucket, for the index: a few hours more on both sides, since clocks change; then those that are in it.
t.{time} >= {start} - {margin}::text::interval and {until} and {bucket} = a.bucket;

-- name: instants_end
(({start} at time zone {zone}::text) + {step}::text::interval) at time zone {zone}::text + {margin}::text::interval;

-- name: locals_end
-- Hands of a clock are compared with hands: what a zone leaves out where clocks change may stand in a row all the same.
{start} + {step}::text::interval + {margin}::text::interval;

-- name: until
t.{time} < {end};

-- name: until_of_owner
-- The same, where an index has an owner's rows in the order of time.  Of a range between two values that it does not know
-- Postgres expects next to nothing, and Postgres 18 would look for each day by itself in an index by time and owner.
({columns}, t.{time}) < ({owner}, {end});

-- name: shown
({bucket})::timestamp;

-- name: shown_of_instant
(({bucket}) at time zone {zone}::text);

-- name: bucket
bucket;

-- name: and
and {condition};

-- name: asked_bucket
a.bucket;

-- name: asked_owner
a.{name};

-- name: owner
t.{column}::text;

-- name: asked
{name}::{type} as {name};

-- name: parameter
{value}::text[];

-- name: sum
coalesce(sum(t.{column})::{type}, 0::{type}) as {name};

-- name: count
count(*)::{type} as {name};

-- name: of_row
t.{column} = a.{name};

-- name: of_target
i.{column} = s.{name};

-- name: summed
-- What the buckets asked for come to, at this moment; `n` rows each.  Those that are {whole} alone: rows of the others may have
-- been purged, also while this run goes on.
asked as materialized (
    select distinct {asked} from unnest({values}) as given ({names})
), summed as materialized (
    select a.*, found.*
    from asked as a cross join lateral (
        select count(*) as n, {sums} from {source} as t where {same} {within}
    ) as found
    where {whole}
);

-- name: always
true;

-- name: kept
{start} >= now() - {retention}::text::interval;

-- name: write
-- Put in what differs, and take away what has no rows any more.  Rides the index of {source} by owner and time, and the unique
-- one of {into}; locks the rows of {into} that it changes, in their order.
with {summed}, gone as (
    delete from {into} as i using summed as s where s.n = 0 and {match}
    returning 1
), put as (
    insert into {into} as i ({columns})
    select {values} from summed as s where s.n > 0 order by {order}
    on conflict ({key}) do update set {set}
    where ({have}) is distinct from ({want})
    returning 1
)
select (select count(*)::int from put) as computed, (select count(*)::int from gone) as emptied;

-- name: compare
-- How many of them differ, and some of those as they should be, by the columns of the table that they go into.
with {summed}, wrong as (
    select {shown} from summed as s left join {into} as i on {match}
    where case when s.n = 0 then {there} else ({have}) is distinct from ({want}) end
)
select (select count(*)::int from wrong) as computed,
       (select coalesce(json_agg(row_to_json(w)), '[]')::text from (select * from wrong limit 5) as w) as sample;

-- name: there
i.{column} is not null;

-- name: excluded
excluded.{column};

-- name: held
i.{column};

-- name: worked_out
s.{name};

-- name: shown_as
s.{name} as {column};

-- name: assign
{column} = excluded.{column};

-- name: now
now();
