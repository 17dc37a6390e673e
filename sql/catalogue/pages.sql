-- A page of a table that the config names: the next rows by age and key, or by key alone.  Reading them locks nothing, and
-- is bounded whatever part of them a job is about.  It rides the index by age, or that of the key.

-- name: scanned
-- The page, its end, and how many rows it has.
scanned as materialized (
    select {keys}, {age} as age {more}
    from {table} as t
    where {range} {after}
    order by {order}
    limit {limit}::int
), page as materialized (
    select count(*)::int as scanned, extract(epoch from max(age)::timestamptz)::float8 as at,
           (select array[{cursor}] from scanned order by {backwards} limit 1) as last
    from scanned
);

-- name: chosen
-- Rows that are known already, by the texts of their keys.
scanned as materialized (
    select {keys}, version from unnest({arrays}, {versions}::text[]) as c ({names}, version)
), page as materialized (
    select count(*)::int as scanned, null::float8 as at, null::text[] as last from scanned
);

-- name: texts
{value}::text[];

-- name: typed
c.{name}::{type} as {name};

-- name: array
array[{texts}];

-- name: ageless
null::timestamptz;

-- name: age
age;

-- name: older
{age} < {below}::timestamptz;

-- name: since
and {age} >= {since}::timestamptz;

-- name: narrowed
-- The condition of a partial index, as Postgres has it: no row is missed by it.
and ({condition});

-- name: all
true;

-- name: after
and ({columns}) > ({values});

-- name: cast
{value}::text::{type};

-- name: named
{column} as {name};

-- name: text
{name}::text;

-- name: descending
{name} desc;

-- name: same
{column} = s.{name};
