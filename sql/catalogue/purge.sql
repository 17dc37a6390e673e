-- Rows that a table keeps no longer.  Of each page those that are to go are locked, unless somebody else has them, judged by
-- what they are at that moment, and deleted: one statement, one transaction.

-- name: page
-- {scan}: the page; {doom}, {conditions}: which of its rows go; {joins}: whose they are; {before}, {beside}: what goes and what is
-- written with them.
with {scan}, doomed as materialized (
    select {keys}
    from scanned as s join {table} as t on {same} {joins}
    where {doom} {conditions}
    for update of t skip locked
){before}, gone as (
    delete from {table} as t using doomed as s
    where {same}
    returning {returned}
){beside}
select scanned, last, at, (select count(*)::int from gone) as deleted{counted}
from page;

-- name: read
-- The rows of a page that are to go, as lines of an archive; nothing is locked.
with {scan}, found as materialized (
    select {key} as key, t.xmin::text as version, {line} as line
    from scanned as s join {table} as t on {same} {joins}
    where {doom} {conditions}
)
select scanned, last, at, coalesce((select array_agg(key) from found), array[]::text[]) as keys,
       coalesce((select array_agg(version) from found), array[]::text[]) as versions,
       coalesce((select array_agg(line) from found), array[]::text[]) as lines
from page;

-- name: unchanged
-- As they were when they were archived.
and t.xmin::text = s.version;

-- name: older
t.{age} < {below}::timestamptz;

-- name: older_of_owner
-- Some owners have a retention of their own; none can make it less than nothing.
t.{age} < {now}::timestamptz - greatest(coalesce({own}, {seconds}::text::float8 * interval '1 second'), interval '0');

-- name: span_interval
o.{column};

-- name: span_days
o.{column}::float8 * interval '1 day';

-- name: latest
-- The latest time before which a row of any owner may be old enough.  Reads all owners, or the index of those with a
-- retention of their own.
select max({now}::timestamptz - greatest({own}, interval '0')) from {owner} as o where o.{column} is not null;

-- name: owner
left join {owner} as o on o.{key} = t.{column};

-- name: orphan
and t.{column} is not null and not exists (select from {parent} as p where p.{key} = t.{column});

-- name: warned
-- Of that it was told long enough ago.
and t.{column} <= {now}::timestamptz - {seconds}::text::float8 * interval '1 second';

-- name: together
-- Rows that point to those that go.
, {name} as (
    delete from {child} as c using doomed as s where c.{column} = s.k1 returning 1
);

-- name: pointing
-- For a rehearsal: a row for each of theirs.
join {child} as c on c.{column} = t.{key};

-- name: count_of
, (select count(*)::int from {name}) as {name};

-- name: all_columns
t.*;

-- name: longer
-- Rows that these conditions single out are kept for longer.
and (t.{age} < {below}::timestamptz or (true {conditions}) is not true);

-- name: newer
-- What another pass has counted.
and (t.{age} < {below}::timestamptz {conditions}) is not true;

-- name: one
1;

-- name: gone
gone;
