-- pre
-- Push messages and text messages: one delivery log for both, and their destinations told in SQL.

-- One row for each attempt, in the words of the mails' log.  `recipient` is no address that could be used: of a push
-- subscription a digest, of a telephone number its first and last digits.
create table notification_deliveries (
    job_id             bigint      not null,
    attempt            smallint    not null,
    org_id             text,
    correlation_id     text,
    channel            text        not null check (channel in ('push', 'sms')),
    recipient          text        not null,
    service            text,
    message_id         text,
    outcome            text        not null check (outcome in ('delivered', 'soft', 'hard', 'unknown', 'deferred')),
    code               text,
    status             int,
    reply              text,
    parts              smallint,
    phases             jsonb,
    duration_ms        real,
    request_bytes      int,
    possible_duplicate boolean     not null default false,
    started_at         timestamptz,
    ended_at           timestamptz not null default now(),
    next_attempt_at    timestamptz
) partition by range (ended_at);
create index notification_deliveries_job on notification_deliveries (job_id);
create index notification_deliveries_recipient on notification_deliveries (recipient, ended_at);
create table notification_deliveries_default partition of notification_deliveries default
    with (autovacuum_freeze_min_age = 0, toast.autovacuum_freeze_min_age = 0); -- as the days, see job_partitions_settings

comment on table notification_deliveries is 'Attempts to send push messages and text messages.';
comment on column notification_deliveries.recipient is 'Of push: left(encode(sha256(endpoint), ''hex''), 32); of sms: the number, its middle masked.';
comment on column notification_deliveries.service is 'The host of the push service, or the name of the SMS provider.';
comment on column notification_deliveries.message_id is 'What the service calls the message.';
comment on column notification_deliveries.parts is 'Of sms: how many parts the text was sent in, which is what providers charge for.';

-- As before, and: a push goes to the host of its subscription, a text message to its provider.
create or replace function job_lane(kind text, args jsonb, lane text) returns text language sql immutable parallel safe as $$
    select case
        when lane is not null then lane
        when kind = 'webhook' then case
            when args -> 'endpoint' is not null then case
                when jsonb_typeof(args -> 'endpoint') = 'number' and (args ->> 'endpoint') collate "C" ~ '^[1-9][0-9]*$'
                     and char_length(args ->> 'endpoint') <= 18
                then 'endpoint:' || (args ->> 'endpoint')
                end
            when split_part(lower((args ->> 'url') collate "C"), '/', 1) in ('https:', 'http:')
                 and split_part(args ->> 'url', '/', 2) = ''
                 and char_length(args ->> 'url') <= 4096 and (args ->> 'url') collate "C" !~ '[\x01-\x20\x7f]'
            then job_lane_host(split_part(split_part(split_part(
                lower(left(args ->> 'url', 99) collate "C"), '/', 3), '?', 1), '#', 1))
            end
        when kind = 'email' then case coalesce(jsonb_typeof(args -> 'relay'), 'null')
            when 'null' then 'main'
            when 'string' then case
                when char_length(args ->> 'relay') between 1 and 64 and (args ->> 'relay') collate "C" !~ '[\x01-\x1f\x7f]'
                     and not starts_with(args ->> 'relay', 'endpoint:')
                then args ->> 'relay'
                end
            end
        when kind = 'dns_check' and jsonb_typeof(args -> 'domain') = 'string' then case
            when char_length(args ->> 'domain') <= 63
                 and lower((args ->> 'domain') collate "C") collate "C" ~ '^[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?$'
            then rtrim(lower((args ->> 'domain') collate "C"), '.')
            end
        when kind = 'push' then case
            when split_part(lower((args #>> '{subscription,endpoint}') collate "C"), '/', 1) in ('https:', 'http:')
                 and split_part(args #>> '{subscription,endpoint}', '/', 2) = ''
                 and char_length(args #>> '{subscription,endpoint}') <= 4096
                 and (args #>> '{subscription,endpoint}') collate "C" !~ '[\x01-\x20\x7f]'
            then job_lane_host(split_part(split_part(split_part(
                lower(left(args #>> '{subscription,endpoint}', 99) collate "C"), '/', 3), '?', 1), '#', 1))
            end
        when kind = 'sms' then case coalesce(jsonb_typeof(args -> 'provider'), 'null')
            when 'null' then 'sms:main'
            when 'string' then case
                when char_length(args ->> 'provider') between 1 and 64
                     and (args ->> 'provider') collate "C" !~ '[\x01-\x1f\x7f]'
                then 'sms:' || (args ->> 'provider')
                end
            end
    end
$$;
