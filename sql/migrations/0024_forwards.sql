-- pre
-- Mail that is forwarded: one insert is the promise to deliver it, so a receiver commits it before it says 250.  Its bytes are
-- here until it is delivered or given up, and not a moment longer.

create table email_forwards (
    id              bigint      generated always as identity primary key,
    org_id          text        check (org_id ~ '^[^\x01-\x1f\x7f]{1,128}$'),
    sender          text        not null,
    recipients      text[]      not null,
    raw             bytea,
    relay           text,
    notify          text,
    smtputf8        boolean     not null default false,
    queue           job_queue   not null default 'default',
    priority        smallint    not null default 2 check (priority between 1 and 4),
    correlation_id  text        check (correlation_id ~ '^[^\x01-\x1f\x7f]{1,128}$'),
    traceparent     text        check (traceparent ~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'),
    state           text        not null default 'waiting' check (state in ('waiting', 'delivered', 'failed')),
    code            text,
    reason          text,
    created_at      timestamptz not null default now(),
    first_failed_at timestamptz,
    ended_at        timestamptz,

    constraint email_forwards_sender_is_an_address
        check (sender = '' or octet_length(sender) <= 320 and sender ~ '^[^\x01-\x20\x7f<>]+@[^\x01-\x20\x7f<>@]+$'),
    constraint email_forwards_recipients_are_addresses
        check (cardinality(recipients) between 1 and 100 and array_position(recipients, null) is null
               and octet_length(array_to_string(recipients, E'\x1f')) <= 25600
               and array_to_string(recipients, E'\x1f')
                   ~ '^[^\x01-\x20\x7f<>@]+@[^\x01-\x20\x7f<>@]+(\x1f[^\x01-\x20\x7f<>@]+@[^\x01-\x20\x7f<>@]+)*$'),
    constraint email_forwards_raw_at_most_50_mib check (octet_length(raw) between 1 and 52428800),
    constraint email_forwards_raw_is_there check (raw is not null or state <> 'waiting'),
    constraint email_forwards_relay_is_a_name
        check (relay ~ '^[^\x01-\x1f\x7f]{1,64}$' and not starts_with(relay, 'endpoint:')),
    constraint email_forwards_notify_is_an_address
        check (octet_length(notify) <= 254 and notify ~ '^[^\x01-\x20\x7f,;<>()"@]+@[^\x01-\x20\x7f,;<>()"@]+$'),
    constraint email_forwards_notify_is_no_recipient
        check (not lower(notify) = any (string_to_array(lower(array_to_string(recipients, E'\x1f')), E'\x1f')))
);
alter table email_forwards alter column raw set storage external; -- compressing a mail costs more than it saves

create index email_forwards_age on email_forwards (created_at);
create index email_forwards_waiting on email_forwards (id) where state = 'waiting';

comment on table email_forwards is 'Mail to forward: insert into email_forwards (sender, recipients, raw) values (…), and say 250 once that is committed.';
comment on column email_forwards.sender is 'Of the envelope, as it came; empty: the null path <>.';
comment on column email_forwards.raw is 'The message, byte for byte; gone once it is delivered or given up.';
comment on column email_forwards.notify is 'Who is told by e-mail when it is given up; not one of the recipients.';
comment on column email_forwards.first_failed_at is 'What the ages of email.forward count from.';

-- One job for each.  With its owner's rights: who inserts forwards need not be allowed any other job.  `unique_key` is what upkeep
-- finds the job by.
create function email_forwards_insert() returns trigger language plpgsql security definer set search_path from current as $$
begin
    insert into jobs (kind, args, queue, org_id, priority, lane, unique_key, correlation_id, traceparent)
    values ('email_forward', jsonb_strip_nulls(jsonb_build_object('forward', new.id, 'relay', new.relay)), new.queue, new.org_id,
            new.priority, coalesce(new.relay, 'main'), new.id::text, new.correlation_id, new.traceparent);
    return null;
end $$;
create trigger email_forwards_insert after insert on email_forwards
    for each row execute function email_forwards_insert();

-- Whether nobody is told of its end: bounces, answers of machines, lists and bulk mail (RFC 3834, 2).  Looks at 64 KiB of its head.
create function email_is_automatic(sender text, raw bytea) returns boolean language sql immutable parallel safe as $$
    select sender = '' or E'\n' || split_part(replace(encode(substring(raw from 1 for 65536), 'escape'), E'\r\n', E'\n'), E'\n\n', 1)
        ~* '\n(list-id[ \t]*:|precedence[ \t]*:[ \t]*(\n[ \t]+)?(bulk|list|junk)|auto-submitted[ \t]*:[ \t]*(\n[ \t]+)?(?!no([ \t\n;(]|$))[^ \t\n])'
$$;

-- What attempts, or upkeep, have said of forwards.  `said`: objects with `forward_id`, `word` (failing, delivered, failed), and of the
-- last one `code`, `reason` and `failed`, the recipients who do not have it (null: all).  The first final word counts; a delivery
-- counts after a failure too.  Whoever should know of a failure is told in the same transaction: endpoints of its organisation,
-- and of none, that ask for jobsd.forward_failed; and `notify` by e-mail, once a day for each recipient, unless the message came
-- from a machine.  Locks the forwards from the lowest id up, then keys in their order; index email_forwards_pkey, job_keys_pkey.
create function email_forwards_said(said jsonb) returns int language plpgsql security definer
set search_path from current set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
    one record;
    ended int := 0;
    untold jsonb := '[]';
begin
    for one in
        select f.id, f.org_id, f.sender, f.recipients, f.notify, f.state, f.created_at, f.correlation_id, s.word,
               left(s.code, 100) as code, left(s.reason, 2000) as reason, coalesce(s.failed, f.recipients) as failed,
               case when s.word = 'failed' and f.state = 'waiting' then email_is_automatic(f.sender, f.raw) end as automatic
        from jsonb_to_recordset(said) as s (forward_id bigint, word text, code text, reason text, failed text[])
        join email_forwards as f on f.id = s.forward_id
        order by f.id for no key update of f
    loop
        if one.word = 'failing' then
            update email_forwards set first_failed_at = now() where id = one.id and first_failed_at is null;
        elsif one.word = 'delivered' and one.state <> 'delivered' then
            update email_forwards set state = 'delivered', raw = null, code = null, reason = null, ended_at = now()
            where id = one.id;
            ended := ended + 1;
        elsif one.word = 'failed' and one.state = 'waiting' then
            update email_forwards set state = 'failed', raw = null, code = one.code, reason = one.reason, ended_at = now()
            where id = one.id;
            ended := ended + 1;
            insert into webhook_events (org_id, event, payload, correlation_id)
            select org, 'jobsd.forward_failed',
                   json_build_object('forward', one.id, 'org_id', one.org_id, 'sender', one.sender, 'recipients', one.recipients,
                                     'failed', one.failed, 'code', one.code, 'reason', one.reason, 'automatic', one.automatic,
                                     'received_at', one.created_at),
                   one.correlation_id
            from unnest(array[null, one.org_id]) with ordinality as to_whom (org, n)
            where org is not null or n = 1;
            if one.notify is not null and not one.automatic then
                untold := untold || to_jsonb(one);
            end if;
        end if;
    end loop;
    with lost as (
        select (item ->> 'id')::bigint as id, item ->> 'org_id' as org_id, item ->> 'notify' as notify, item ->> 'sender' as sender,
               item ->> 'reason' as reason, item ->> 'created_at' as received_at, recipient,
               concat_ws(E'\x1f', item ->> 'org_id', lower(recipient), to_char(now() at time zone 'UTC', 'YYYYMMDD')) as key
        from jsonb_array_elements(untold) as item cross join jsonb_array_elements_text(item -> 'failed') as recipient
    ), told as (
        insert into job_keys (kind, key, job_id)
        select 'email_forwards', key, min(id) from lost group by key order by key
        on conflict do nothing returning key, job_id
    )
    insert into jobs (kind, org_id, args)
    select 'email', min(org_id), jsonb_build_object(
        'to', min(notify),
        'subject', 'A message could not be forwarded',
        'text', format(E'A message from %s, received %s, could not be delivered to %s:\n\n%s\n\nIt was tried for as long as it may be, '
                       || E'and is not kept.  Of further ones to the same address nothing is said before tomorrow (UTC).\n',
                       min(sender), to_char(min(received_at)::timestamptz at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'),
                       string_agg(recipient, ', ' order by recipient), min(reason)))
    from told join lost on lost.key = told.key and lost.id = told.job_id
    group by id;
    return ended;
end $$;
