-- Rows that a table keeps no longer.  Of each page those that are to go are locked, unless somebody else has them, judged by
-- what they are at that moment, and deleted: one statement, one transaction.

-- name: page
-- {scan}: the page; {doom}, {conditions}: which of its rows go; {beside}: what is written with them.
with {scan}, doomed as materialized (
    select {keys}
    from scanned as s join {table} as t on {same} {joins}
    where {doom} {conditions}
    for update of t skip locked
), gone as (
    delete from {table} as t using doomed as s
    where {same}
    returning {returned}
){beside}
select scanned, last, at, (select count(*)::int from gone) as deleted {counted}
from page;

-- name: older
t.{age} < {below}::timestamptz;

-- name: count
-- How many rows would go, up to {most}.
select count(*)::int from (
    select from {table} as t {joins} where {doom} {conditions} limit {most}::int
) as found;

-- name: sample
-- Some of those that would go, the oldest first.
select row_to_json(found)::text from (
    select {shown} from {table} as t {joins} where {doom} {conditions} order by {order} limit {most}::int
) as found;

-- name: longer
-- Rows that these conditions single out are kept for longer.
and (t.{age} < {below}::timestamptz or (true {conditions}) is not true);

-- name: newer
-- What another pass has counted.
and (t.{age} < {below}::timestamptz {conditions}) is not true;

-- name: one
1;
