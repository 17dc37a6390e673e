-- Rows that will soon be old enough: their owners are told, once for each row, by one mail a day at most.

-- name: page
-- The mark and the mail are one commit, so neither is there without the other.  Another mail to the same address on the same day
-- would say the same: its idempotency key keeps it out, and the rows count as warned of.
with {scan}, due as materialized (
    select {keys}, {email}::text as email
    from scanned as s join {table} as t on {same} {joins}
    where {due}
    for update of t skip locked
), told as (
    update {table} as t set {column} = {now}::timestamptz from due as s where {same} returning s.email
), mails as (
    insert into jobs (kind, args, queue, priority, idempotency_key)
    select 'email', {mail}::text::jsonb || jsonb_build_object('to', email), 'notification', 2,
           left({name}::text || ':' || to_char({now}::timestamptz at time zone 'UTC', 'YYYY-MM-DD') || ':' || md5(email), 200)
    from (select distinct email from told where email <> '') as told
    on conflict do nothing
    returning 1
)
select scanned, last, at, (select count(*)::int from told) as warned, (select count(*)::int from mails) as mails
from page;

-- name: untold
and t.{column} is null;

-- name: owner
o;

-- name: row
t;
