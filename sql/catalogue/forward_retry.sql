-- Forwards that failed somewhere else, handed to jobsd's own table `email_forwards`, each once: the row there and the mark here are
-- one statement.  What becomes of them is told to the user's rows later.

-- name: hand_over
-- {scan}: a page of the user's table.  Numbers of email_forwards are taken before the rows are made, so that each goes with its
-- row.  What `email_forwards` would refuse has failed: nothing would ever change that.  The trigger there makes the job.
with {scan}, due as materialized (
    select {keys}, {sender} as sender, {recipients} as recipients, t.{raw} as raw, {org} as org_id, {notify} as notify,
           t.{failed_at}::timestamptz as failed_at
    from scanned as s join {table} as t on {same}
    where {condition}
    for update of t skip locked
), judged as materialized (
    select due.*, {why} as why from due
), numbered as materialized (
    select judged.*, case when why is null then email_forward_number() end as forward_id
    from judged
), handed as (
    insert into email_forwards (id, org_id, sender, recipients, raw, notify, relay, first_failed_at) overriding system value
    select forward_id, org_id, sender, recipients, raw, notify, {relay}::text, failed_at
    from numbered where why is null order by forward_id
    returning id
), marked as (
    update {table} as t set {forward} = s.forward_id {refusal} from numbered as s where {same} returning s.why
)
select scanned, last, at, (select count(*)::int from handed) as handed,
       (select count(*)::int from marked where why is not null) as refused
from page;

-- name: why
-- The first thing that `email_forwards` would refuse; null: it takes it.
case when sender is null or not (sender = '' or octet_length(sender) <= 320 and sender ~ '^[^\x01-\x20\x7f<>]+@[^\x01-\x20\x7f<>@]+$')
     then 'the sender is no address'
     when recipients is null or coalesce(cardinality(recipients), 0) not between 1 and 100
          or array_position(recipients, null) is not null
          or octet_length(array_to_string(recipients, E'\x1f')) > 25600
          or array_to_string(recipients, E'\x1f')
              !~ '^[^\x01-\x20\x7f<>@]+@[^\x01-\x20\x7f<>@]+(\x1f[^\x01-\x20\x7f<>@]+@[^\x01-\x20\x7f<>@]+)*$'
     then 'a recipient is no address, or there are none or more than 100'
     when raw is null or octet_length(raw) not between 1 and 52428800
     then 'there are no bytes, or more than 50 MiB'
     when org_id is not null and not (char_length(org_id) between 1 and 128 and org_id !~ '[\x01-\x1f\x7f]')
     then 'the organisation has no known name'
     when notify is not null and not (octet_length(notify) <= 254
          and notify ~ '^[^\x01-\x20\x7f,;<>()"@]+@[^\x01-\x20\x7f,;<>()"@]+$')
     then 'who should be told is no address'
     when lower(notify) = any (string_to_array(lower(array_to_string(recipients, E'\x1f')), E'\x1f'))
     then 'who should be told is a recipient'
     when failed_at not between '1970-01-01' and now() + interval '1 day' then 'its first failure has no possible time'
end;

-- name: waits
-- Not handed over, not ended, and old enough for a try.
t.{forward} is null and t.{ended} is null and t.{failed_at} < {below}::timestamptz {conditions};

-- name: refused_ended
, {column} = case when s.why is null then t.{column} else {now}::timestamptz end;

-- name: refused_outcome
, {column} = case when s.why is null then t.{column} else {value}::text::{type} end;

-- name: refused_reason
, {column} = coalesce(s.why, t.{column});

-- name: tell
-- {scan}: a page of the user's table; rows whose forward has ended are told so.  index email_forwards_pkey
with {scan}, news as materialized (
    select {keys}, f.ended_at, f.state = 'delivered' as delivered, f.reason
    from scanned as s join {table} as t on {same}
    join email_forwards as f on f.id = t.{forward}
    where t.{ended} is null and f.state <> 'waiting'
    for update of t skip locked
), told as (
    update {table} as t set {changes} from news as s where {same} returning s.delivered
)
select scanned, last, at, (select count(*)::int from told where delivered) as delivered,
       (select count(*)::int from told where not delivered) as failed
from page;

-- name: told_ended
{column} = s.ended_at;

-- name: told_outcome
{column} = case when s.delivered then {delivered}::text else {failed}::text end::{type};

-- name: told_reason
{column} = s.reason;

-- name: told_raw
{column} = null;

-- name: text
t.{column}::text;

-- name: several
t.{column}::text[];

-- name: one
array[t.{column}::text];

-- name: nobody
null::text;
