-- The rows of one account, table by table.  {row} is what the statement calls a row; values are texts that Postgres casts to the
-- column's type.  Rows that are to go are named by their key, page by page: each statement is a transaction, and small.

-- name: equal
{column} = {value}::text::{type};

-- name: one_of
-- The columns of a key, among values that are given column by column.
({columns}) in (select {casts} from unnest({arrays}) as u ({names}));

-- name: any_of
-- The same of a key of one column.
{column} = any ({value}::text[]::{type}[]);

-- name: through
exists (select from {parent} as {alias} where {same} and ({condition}));

-- name: all
true;

-- name: pair
{left} = {right};

-- name: cast
{name}::{type};

-- name: array
{value}::text[];

-- name: text
{column}::text;

-- name: page
-- Some of the rows: their keys, and what other tables point to them by.
select {shown} from {table} as t where {condition} limit {limit}::int;

-- name: delete
with gone as (delete from {table} as t where {same} and ({condition}) returning 1){noted}
select count(*)::int from gone;

-- name: noted
-- In the same transaction: the request counts what was deleted for it.
, noted as (
    update {requests} as r1 set rows_deleted = coalesce(r1.rows_deleted, 0) + (select count(*) from gone) where {asked}
);

-- name: blank
-- Rows that stay, and name nobody any more.
with gone as (update {table} as t set {sets} where {same} and ({condition}) returning 1)
select count(*)::int from gone;

-- name: null
{column} = null;

-- name: held
{column} is not null;

-- name: both
({one}) and ({other});

-- name: default
{column} = default;

-- name: count
select count(*)::int from (select from {table} as t where {condition} limit {limit}::int) as found;

-- name: doomed
-- Accounts that were deleted long enough ago, the first ones first, after the last one that was looked at.
select {key}::text as account, {deleted}::text as deleted
from {table} as t
where {deleted} is not null and {deleted} <= {now}::timestamptz - {seconds}::text::float8 * interval '1 second' {after}
order by {deleted}, {key} limit {limit}::int;

-- name: after
and ({deleted}, {key}) > ({from_deleted}::text::timestamptz, {from_key}::text::{type});

-- name: account
-- What other tables may hold of an account: its key, its address.  No row: it is gone, or not deleted.
select {shown} from {table} as t where {key} = {account}::text::{type} and {deleted} is not null;

-- name: alive
select {shown} from {table} as t where {key} = {account}::text::{type};

-- name: still
-- Nothing more goes once a deletion was taken back.
exists (select from {accounts} as a1 where a1.{key} = {account}::text::{type} and a1.{deleted} is not null);

-- name: with_access
-- Accounts that were deleted, and have rows in a table that gives access: the next ones by their key.
select t.{key}::text as account from {accounts} as t
where t.{deleted} is not null {after} and exists (select from {table} as a1 where {joined})
order by t.{key} limit {limit}::int;

-- name: beyond
and t.{key} > {last}::text::{type};

-- name: named
{column} as {name};

-- name: finish
-- The account itself, and its request: it is done.  Nothing, if it is not deleted any more.
with gone as (
    delete from {accounts} as t where {key} = {account}::text::{type} and {deleted} is not null returning 1
)
select count(*)::int from gone;

-- name: completed
update {requests} as r1 set completed_at = now(), rows_deleted = coalesce(r1.rows_deleted, 0), {column} = null where {asked};

-- name: rows_json
-- Rows of an account for its export, as JSON.
select row_to_json(x)::text from (select {columns} from {table} as t where {condition}) as x;

-- name: rows_text
-- The same rows, each value as text.
select array[{texts}]::text[] from {table} as t where {condition};

-- name: everybody
-- The accounts' own table: one row.
{key} = {account}::text::{type};

-- name: wanted
-- Exports that are to be made: the oldest one.  A run that was killed has left its own as it was.
select r1.id::text as id, r1.{account}::text as account, a1.{key} is not null and a1.{deleted} is null as there, {address}::text as address, {org}::text as org,
    r1.location
from {requests} as r1 left join {accounts} as a1 on a1.{key} = r1.{account}
where r1.state in ('wanted', 'running') and r1.id::text <> all ({passed}::text[]) order by r1.requested_at, r1.id limit 1;

-- name: begun
-- Where its file will lie is said before there is one: whoever erases the account finds it there.
update {requests} as r1 set state = 'running', location = {location}::text where r1.id = {id}::text::{key_type};

-- name: failed
update {requests} as r1 set state = 'failed', location = null where r1.id = {id}::text::{key_type};

-- name: ready
-- Only while the account is there: locked, so that it is not deleted at this moment.
with there as (
    select from {accounts} as a1 where a1.{key} = {account}::text::{type} and a1.{deleted} is null for share
)
update {requests} as r1
set state = 'ready', location = {location}::text, size_bytes = {size}::bigint, sha256 = decode({sha256}::text, 'hex'), ready_at = now(),
    expires_at = now() + {seconds}::text::float8 * interval '1 second'
where r1.id = {id}::text::{key_type} and exists (select from there)
returning r1.expires_at;

-- name: expired
-- Exports whose time is over.
select r1.id::text as id, r1.location from {requests} as r1
where r1.state = 'ready' and r1.expires_at <= now() order by r1.expires_at, r1.id limit {limit}::int;

-- name: over
update {requests} as r1 set state = 'expired', location = null where r1.id = any ({ids}::text[]::{key_type}[]) and r1.state = 'ready';

-- name: waiting
-- How many exports wait, and how many are over.
select count(*) filter (where r1.state in ('wanted', 'running')) as would_export,
       count(*) filter (where r1.state = 'ready' and r1.expires_at <= now()) as would_expire
from {requests} as r1 where r1.state in ('wanted', 'running', 'ready');

-- name: nothing
null::text;
