-- Rows whose time is over.  Of each page those that are not marked yet are locked, unless somebody else has them, judged by what
-- they are at that moment, and changed: one statement, one transaction.

-- name: page
-- {scan}: the page; {condition}: which of its rows; {changes}: what becomes of them; {beside}: what is written down.
with {scan}, due as materialized (
    select {keys}
    from scanned as s join {table} as t on {same}
    where {condition}
    for update of t skip locked
), changed as (
    update {table} as t set {changes} from due as s
    where {same}
    returning {returned}
){beside}
select scanned, last, at, (select count(*)::int from changed) as expired
from page;

-- name: due
t.{expires} < {below}::timestamptz and ({other}) {conditions};

-- name: other
t.{column} is distinct from {value}::text::{type};

-- name: there
t.{column} is not null;

-- name: set
{column} = {value}::text::{type};

-- name: clear
{column} = null;

-- name: stamp
{column} = {now}::timestamptz;

-- name: all_columns
t.*;

-- name: one
1;

-- name: changed
changed;
