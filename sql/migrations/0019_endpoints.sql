-- pre
-- Webhook endpoints, their secrets, and events: one insert of an event is one job for each endpoint that wants it, in the
-- producer's own transaction.

-- Where events of an organisation go.  Null: endpoints of rows without an organisation.  A name has a letter or a sign in it, so
-- that commands can tell it from an id.
create table webhook_endpoints (
    id                 bigint      generated always as identity primary key,
    org_id             text        check (org_id ~ '^[^\x01-\x1f\x7f]{1,128}$'),
    name               text        not null,
    url                text        not null,
    events             text[]      not null default '{*}',
    headers            jsonb       not null default '{}',
    signing            text[]      not null default '{standard}',
    profile            text        not null default 'default' check (profile ~ '^[A-Za-z0-9_-]{1,64}$'),
    timeout            interval    check (timeout between '50 ms' and '4 min'),
    rate               text,
    burst              int         check (burst between 1 and 1000000),
    concurrency        int         check (concurrency between 1 and 1000000),
    ordering           text        not null default 'none' check (ordering in ('none', 'block', 'skip')),
    gone               text        not null default 'confirm' check (gone in ('confirm', 'immediate', 'ignore')),
    client_certificate text        check (client_certificate ~ '^secret://[A-Za-z0-9_-]{1,64}$'),
    template           text        check (octet_length(template) <= 65536),
    content_type       text        check (content_type ~ '^[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?$'),
    contact            text        check (octet_length(contact) <= 254 and contact ~ '^[^\x01-\x20\x7f,;<>()"@]+@[^\x01-\x20\x7f,;<>()"@]+$'),
    state              text        not null default 'enabled' check (state in ('enabled', 'disabled')),
    disabled_at        timestamptz,
    disabled_by        text,
    disabled_reason    text,
    enabled_at         timestamptz,
    failing_since      timestamptz,
    failures           int         not null default 0,
    failed_messages    text[]      not null default '{}',
    warned_at          timestamptz,
    gone_at            timestamptz,
    gone_message       text,
    created_at         timestamptz not null default now(),
    updated_at         timestamptz not null default now(),

    constraint webhook_endpoints_name_is_no_number check (name ~ '^[^\x01-\x1f\x7f]{1,100}$' and name !~ '^[0-9]+$'),
    constraint webhook_endpoints_url_is_http
        check (octet_length(url) <= 4096 and url ~* '^https?://' and url !~ '[\x01-\x20\x7f]'),
    constraint webhook_endpoints_events_are_patterns
        check (cardinality(events) between 1 and 100 and array_position(events, null) is null
               and octet_length(array_to_string(events, ',')) <= 8192
               and array_to_string(events, ',')
                   ~ '^(\*|[A-Za-z0-9_:/-]+(\.[A-Za-z0-9_:/-]+)*(\.\*)?)(,(\*|[A-Za-z0-9_:/-]+(\.[A-Za-z0-9_:/-]+)*(\.\*)?))*$'),
    constraint webhook_endpoints_headers_are_an_object
        check (jsonb_typeof(headers) = 'object' and octet_length(headers::text) <= 16384
               and not jsonb_path_exists(headers, '$.* ? (@.type() != "string")')),
    constraint webhook_endpoints_signing_known
        check (array_position(signing, null) is null and signing <@ '{standard,standard_ed25519,github,stripe}'),
    constraint webhook_endpoints_rate_is_a_rate
        check (rate ~ '^[0-9]+(\.[0-9]+)?/(ms|s|m|h|d)$' and rate ~ '^[0-9.]*[1-9]' and octet_length(rate) <= 32),
    constraint webhook_endpoints_burst_needs_a_rate check (burst is null or rate is not null)
);

-- Names are unique in an organisation; and what a fan-out looks its endpoints up by.
create unique index webhook_endpoints_name on webhook_endpoints (coalesce(org_id, ''), name);

comment on table webhook_endpoints is 'Where events go: insert into webhook_events (org_id, event, payload) values (…).';
comment on column webhook_endpoints.events is 'Patterns of events it wants: *, invoice.*, invoice.paid.';
comment on column webhook_endpoints.signing is 'Ways to sign: standard, standard_ed25519, github, stripe; none where empty.';
comment on column webhook_endpoints.profile is 'When to try again: default, standard, or a name of [webhook.profiles].';
comment on column webhook_endpoints.timeout is 'Longest time for one attempt; can only shorten webhook.timeout.';
comment on column webhook_endpoints.rate is 'Deliveries in a period, exact over all daemons: 10/s, 600/m.';
comment on column webhook_endpoints.failing_since is 'No attempt has gone well since; failures counts those that did not.';
comment on column webhook_endpoints.contact is 'Who is told by e-mail that it only fails, or is disabled for it.';
comment on column webhook_endpoints.ordering is 'Of an event''s ordering_key: none; block: one that fails holds up the later ones; skip.';

-- Newest first they sign; one that was replaced goes on until expires_at.  `secret` is the text itself, or secret://NAME.
create table webhook_secrets (
    id          bigint      generated always as identity primary key,
    endpoint_id bigint      not null references webhook_endpoints (id) on delete cascade,
    org_id      text, -- the endpoint's: policies go by it
    secret      text        not null check (octet_length(secret) <= 512 and secret ~ '^[\x21-\x7e]+$'),
    created_at  timestamptz not null default now(),
    expires_at  timestamptz
);
create index webhook_secrets_endpoint on webhook_secrets (endpoint_id, id);
comment on table webhook_secrets is 'What endpoints are signed for with; select webhook_rotate_secret(id) makes the next one.';

-- As before, and: who may change endpoints would have those of everybody.
create or replace function job_org_members_kept() returns trigger language plpgsql security definer set search_path from current as $$
begin
    if exists (select from pg_roles where oid = old.role::oid)
        and not exists (select from job_org_members where role = old.role)
        and (has_any_column_privilege(old.role::oid, 'jobs', 'select, insert, update')
             or has_any_column_privilege(old.role::oid, 'webhook_endpoints', 'select, insert, update')
             or has_table_privilege(old.role::oid, 'job_status', 'select'))
    then
        raise exception '% would belong to every organisation, since it is left with none', old.role
            using errcode = 'check_violation', schema = tg_table_schema, table = tg_table_name,
                  constraint = 'job_org_members_leave_no_role_open',
                  hint = 'Drop the role, or take its rights on jobs, job_status and webhook_endpoints away first.';
    end if;
    return null;
end $$;

-- References to daemons' secrets, from a login of organisations: only to such as begin with the endpoint's organisation and two
-- hyphens.  Whoever says where messages go could have any other sent there.
create function webhook_secrets_are_own(org text, texts text[]) returns boolean
language sql stable set search_path from current as $$
    select (select orgs is null from job_own_orgs)
        or not exists (select from unnest(texts) as one (said)
                       where starts_with(said, 'secret://') and not coalesce(starts_with(said, 'secret://' || org || '--'), false))
$$;

-- With the rights of whoever inserts: an endpoint that he does not see has no organisation here, which the policy refuses him.
create function webhook_secrets_insert() returns trigger language plpgsql set search_path from current as $$
begin
    new.org_id := (select org_id from webhook_endpoints where id = new.endpoint_id);
    if not webhook_secrets_are_own(new.org_id, array[new.secret]) then
        raise exception 'this secret of the daemons is not one of organisation %', new.org_id
            using errcode = 'check_violation', schema = tg_table_schema, table = tg_table_name,
                  constraint = 'webhook_secrets_are_its_own', column = 'secret',
                  hint = format('Names of yours begin with secret://%s--.', new.org_id);
    end if;
    return new;
end $$;
create trigger webhook_secrets_insert before insert on webhook_secrets
    for each row execute function webhook_secrets_insert();

-- A new secret signs from now on; those before it sign beside it for `grace`.  Returned: the new one, for the last time.  At most
-- ten live ones: more would not fit receivers' idea of a header.  With the rights of whoever calls it, who needs none to read a
-- secret; policies say which endpoints are there for him.  64 random bytes of four uuids, hashed to 32.
create function webhook_rotate_secret(endpoint bigint, secret text default null, grace interval default '24 hours')
returns text language plpgsql set search_path from current as $$
declare
    made text := coalesce(secret, 'whsec_' || encode(sha256(
        uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
        || uuid_send(gen_random_uuid())), 'base64'));
begin
    if grace is null or grace < '0' or grace > '7 days' then
        raise exception 'grace must be between 0 and 7 days' using errcode = 'check_violation';
    end if;
    perform from webhook_endpoints where id = endpoint for no key update;
    if not found then
        raise exception 'there is no endpoint %', endpoint using errcode = 'foreign_key_violation';
    end if;
    update webhook_secrets s
    set expires_at = case when rank > 9 then now() else now() + grace end
    from (select id, row_number() over (order by webhook_secrets.id desc) as rank from webhook_secrets
          where endpoint_id = endpoint and (expires_at is null or expires_at > now())) as live
    where s.id = live.id and (s.expires_at is null or rank > 9 or s.expires_at > now() + grace);
    insert into webhook_secrets (endpoint_id, secret) values (endpoint, made);
    return made;
end $$;

-- A disabled endpoint's rows wait at the gate of its lane, and nothing is lost: a hold, as of a breaker, that no probe ends.
-- Whatever changes `state` makes or ends it, in the same transaction; daemons hear of it at once.
-- Another URL is another receiver: how the last one did says nothing of it.
create function webhook_endpoints_changed() returns trigger language plpgsql set search_path from current as $$
declare
    watched constant text[] := '{failing_since,failures,failed_messages,warned_at,gone_at,gone_message}';
begin
    if tg_op = 'UPDATE' and new.org_id is distinct from old.org_id then
        raise exception 'an endpoint stays with its organisation: what waits for it is of that one'
            using errcode = 'check_violation', schema = tg_table_schema, table = tg_table_name,
                  constraint = 'webhook_endpoints_stay_with_their_organisation', column = 'org_id';
    end if;
    if (tg_op = 'INSERT' or new.headers <> old.headers or new.client_certificate is distinct from old.client_certificate)
       and not webhook_secrets_are_own(
           new.org_id, array(select v #>> '{}' from jsonb_path_query(new.headers, '$.*') as v) || new.client_certificate)
    then
        raise exception 'headers and client_certificate name a secret of the daemons that is not one of organisation %', new.org_id
            using errcode = 'check_violation', schema = tg_table_schema, table = tg_table_name,
                  constraint = 'webhook_endpoints_secrets_are_its_own',
                  hint = format('Names of yours begin with secret://%s--.', new.org_id);
    end if;
    if tg_op = 'INSERT' or new.url <> old.url or new.state = 'enabled' and old.state = 'disabled' then
        new.failing_since := null;
        new.failures := 0;
        new.failed_messages := '{}';
        new.warned_at := null;
        new.gone_at := null;
        new.gone_message := null;
    end if;
    if tg_op = 'INSERT' or to_jsonb(new) - watched <> to_jsonb(old) - watched then
        new.updated_at := now();
    end if;
    if tg_op = 'INSERT' or new.state <> old.state then
        if new.state = 'disabled' then
            new.disabled_at := coalesce(new.disabled_at, now());
            new.disabled_by := coalesce(new.disabled_by, session_user);
        else
            new.enabled_at := case when tg_op = 'UPDATE' then now() end;
            new.disabled_at := null;
            new.disabled_by := null;
            new.disabled_reason := null;
        end if;
    end if;
    return new;
end $$;
create trigger webhook_endpoints_changed before insert or update on webhook_endpoints
    for each row execute function webhook_endpoints_changed();

alter table job_holds drop constraint job_holds_cause_check;
alter table job_holds add constraint job_holds_cause_check
    check (cause in ('pause', 'breaker', 'retry_after', 'quota', 'disabled'));

create function webhook_endpoints_held() returns trigger language plpgsql security definer set search_path from current as $$
begin
    if tg_op = 'DELETE' or tg_op = 'UPDATE' and new.state = 'enabled' then
        delete from job_holds where gate = 'lane:endpoint:' || old.id and cause = 'disabled';
        if not found then
            return null;
        end if;
    elsif new.state = 'disabled' then
        insert into job_holds (gate, cause, since, actor, reason)
        values ('lane:endpoint:' || new.id, 'disabled', new.disabled_at, new.disabled_by, new.disabled_reason)
        on conflict (gate, cause) do update set actor = excluded.actor, reason = excluded.reason;
    else
        return null;
    end if;
    perform pg_notify(left('jobsd:' || current_schema(), 63), 'control');
    return null;
end $$;
create trigger webhook_endpoints_held after insert or delete or update of state, disabled_by, disabled_reason on webhook_endpoints
    for each row execute function webhook_endpoints_held();

-- What attempts have said of endpoints, from one daemon's last second; what came of it is returned, for its log.  `said`: objects
-- with `id`, `ok` (one went well, before the failures), `failures`, `messages` (that failed, three are enough), `plea` ('gone': it
-- answered 410; 'disable': it asked for no more) and `message` (the one it said so to).
-- An endpoint where nothing went well is warned of after a fifth and three fifths of `patience`, and disabled after all of it (null:
-- never), if at least 20 attempts at 3 messages failed: not for one message that it cannot take.  410 from `gone` = 'confirm' is
-- believed when a second message gets one ten minutes later: proxies say it too, by mistake.  For an hour after somebody enabled it
-- none of this disables it again.  Locks the endpoints from the lowest id up; index webhook_endpoints_pkey.
-- Whoever should know is told in the same transaction: endpoints of its organisation, and of none, that ask for the event, and
-- its contact by e-mail.
create function webhook_endpoints_said(said jsonb, patience interval)
returns table (told_id bigint, told_org text, told_name text, told_what text, told_why text)
language plpgsql security definer set search_path from current as $$
declare
    one record;
    e webhook_endpoints%rowtype;
    why text;
begin
    for one in
        select * from jsonb_to_recordset(said) as s (id bigint, ok boolean, failures int, messages text[], plea text, message text)
        order by s.id
    loop
        select * into e from webhook_endpoints where id = one.id and state = 'enabled' for no key update;
        continue when not found;
        why := null;
        told_what := null;
        if one.ok then
            e.failing_since := null;
            e.failures := 0;
            e.failed_messages := '{}';
            e.warned_at := null;
            e.gone_at := null;
            e.gone_message := null;
        end if;
        if one.failures > 0 then
            e.failing_since := coalesce(e.failing_since, now());
            e.failures := least(e.failures::bigint + one.failures, 2000000000);
            e.failed_messages := (array(select distinct m from unnest(e.failed_messages || one.messages) as m))[:3];
            if e.failures >= 20 and cardinality(e.failed_messages) >= 3 and e.failing_since <= now() - patience then
                why := format('nothing but failures since %s', to_char(e.failing_since at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'));
            elsif exists (select from unnest(array[0.2, 0.6]) as share
                          where e.failing_since <= now() - share * patience
                            and coalesce(e.warned_at < e.failing_since + share * patience, true))
            then
                told_what := 'warned';
                e.warned_at := now();
            end if;
        end if;
        if one.plea = 'disable' then
            why := 'it asked for no more by webhook-delivery: disable';
        elsif one.plea = 'gone' and e.gone = 'immediate' then
            why := 'it answered 410, that it is gone';
        elsif one.plea = 'gone' and e.gone = 'confirm' then
            if e.gone_at is null then
                e.gone_at := now();
                e.gone_message := one.message;
            elsif e.gone_at <= now() - interval '10 minutes' and e.gone_message <> one.message then
                why := 'it answered 410 to two messages, that it is gone';
            end if;
        end if;
        if why is not null and coalesce(e.enabled_at <= now() - interval '1 hour', true) then
            told_what := 'disabled';
            e.state := 'disabled';
            e.disabled_by := 'jobsd';
            e.disabled_reason := why;
        end if;
        update webhook_endpoints
        set failing_since = e.failing_since, failures = e.failures, failed_messages = e.failed_messages, warned_at = e.warned_at,
            gone_at = e.gone_at, gone_message = e.gone_message, state = e.state, disabled_by = e.disabled_by,
            disabled_reason = e.disabled_reason
        where id = one.id;
        if told_what is not null then
            told_id := e.id;
            told_org := e.org_id;
            told_name := e.name;
            told_why := coalesce(why, format('nothing but failures since %s',
                                             to_char(e.failing_since at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"')));
            insert into webhook_events (org_id, event, payload)
            select org, 'jobsd.endpoint_' || told_what,
                   json_build_object('endpoint', e.id, 'name', e.name, 'org_id', e.org_id, 'reason', told_why,
                                     'failing_since', e.failing_since, 'disable_after_s', date_part('epoch', patience))
            from unnest(array[null, e.org_id]) with ordinality as to_whom (org, n)
            where org is not null or n = 1;
            if e.contact is not null then
                insert into jobs (kind, org_id, args)
                values ('email', e.org_id, jsonb_build_object(
                    'to', e.contact,
                    'subject', format('Webhook endpoint %s %s', e.name,
                                      case told_what when 'disabled' then 'is disabled' else 'only fails' end),
                    'text', format(E'%s: %s.\n\n%s\n', e.name, told_why, case told_what when 'disabled'
                        then 'Nothing is sent to it any more.  What happens meanwhile waits, and is sent when it is enabled again.'
                        else format('If that goes on it will be disabled, %s after it began.  Nothing is lost: what fails is tried '
                                    || 'again.', justify_hours(patience)) end)));
            end if;
            return next;
        end if;
    end loop;
end $$;

-- Events.  `payload` is json and not jsonb: it is sent as it was given, byte for byte.  Columns from `queue` on go to the jobs.
create sequence webhook_events_id; -- identity is refused by the partitions of some versions
create table webhook_events (
    id              bigint      not null default nextval('webhook_events_id'),
    org_id          text        check (org_id ~ '^[^\x01-\x1f\x7f]{1,128}$'),
    event           text        not null,
    payload         json,
    body            bytea       check (octet_length(body) <= 262144),
    content_type    text        check (content_type ~ '^[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?$'),
    idempotency_key text        check (idempotency_key ~ '^[^\x01-\x1f\x7f]{1,255}$'),
    ordering_key    text        check (ordering_key ~ '^[^\x01-\x1f\x7f]{1,200}$'),
    queue           job_queue   not null default 'default',
    priority        smallint    not null default 2 check (priority between 1 and 4),
    run_at          timestamptz,
    expires_at      timestamptz,
    correlation_id  text        check (correlation_id ~ '^[^\x01-\x1f\x7f]{1,128}$'),
    traceparent     text        check (traceparent ~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'),
    actor_id        text        check (actor_id ~ '^[^\x01-\x1f\x7f]{1,128}$'),
    project_id      text        check (project_id ~ '^[^\x01-\x1f\x7f]{1,128}$'),
    created_at      timestamptz not null default now(),

    constraint webhook_events_event_is_words_and_dots
        check (octet_length(event) <= 128 and event ~ '^[A-Za-z0-9_:/-]+(\.[A-Za-z0-9_:/-]+)*$'),
    constraint webhook_events_have_a_payload_or_a_body check (num_nonnulls(payload, body) = 1),
    constraint webhook_events_payload_at_most_256_kib check (octet_length(payload::text) <= 262144)
) partition by range (created_at);
alter sequence webhook_events_id owned by webhook_events.id;
create index webhook_events_by_id on webhook_events (id);
create table webhook_events_default partition of webhook_events default
    with (autovacuum_freeze_min_age = 0, toast.autovacuum_freeze_min_age = 0); -- as the days, see job_partitions_settings

comment on table webhook_events is 'What happened: each row becomes a job for every endpoint of its organisation that wants it.';
comment on column webhook_events.payload is 'Sent as it is, byte for byte; at most 256 KiB.  Else give body, with content_type.';
comment on column webhook_events.idempotency_key is 'At most one event ever per (org_id, idempotency_key); a second insert adds no row.';

-- Everything an endpoint may have asked for by, of which one is enough: *, a.*, a.b.*, a.b.c for the event a.b.c.  What the daemons
-- have to say of endpoints, jobsd.endpoint_disabled, goes to those that ask for just that: * does not.
create function webhook_patterns(event text) returns text[] language sql immutable parallel safe as $$
    select case when starts_with(event, 'jobsd.') then array[event] else array['*', event] end || array(
        select array_to_string(words[:n], '.') || '.*'
        from string_to_array(event, '.') as words, generate_series(1, cardinality(words) - 1) as n)
$$;

-- A second event with the same key adds no row and raises nothing; it waits only for a transaction that is inserting the same key.
-- Keys are an organisation's own.  Whoever may not insert for this organisation is refused by the policy, and learns nothing here.
create function webhook_events_once() returns trigger language plpgsql security definer set search_path from current as $$
begin
    if (select orgs is not null and (new.org_id = any (orgs)) is not true from job_own_orgs) then
        return new;
    end if;
    insert into job_keys (kind, key, job_id)
    values ('webhook_events', concat(new.org_id, E'\x1f', new.idempotency_key), new.id) -- no name has that character
    on conflict do nothing;
    return case when found then new end;
end $$;
create trigger webhook_events_once before insert on webhook_events
    for each row when (new.idempotency_key is not null) execute function webhook_events_once();

-- One statement for all events of an insert.  With its owner's rights: who inserts events need not see endpoints, and gets
-- only those of the events' own organisation.  Events are few or many, an organisation's endpoints few: a nested loop over
-- index webhook_endpoints_name.  (Each session keeps its plan: made for a thousand events, it may not read all endpoints for one.)
create function webhook_fan_out() returns trigger language plpgsql security definer
set search_path from current set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
begin
    insert into jobs (kind, args, queue, org_id, priority, run_at, expires_at, ordering_key, lane, correlation_id, traceparent,
                      actor_id, project_id)
    select 'webhook', jsonb_build_object('endpoint', endpoint.id, 'event_id', event.id), event.queue, event.org_id,
           event.priority, coalesce(event.run_at, now()), event.expires_at,
           case when endpoint.ordering <> 'none' then 'endpoint:' || endpoint.id || ':' || event.ordering_key end,
           'endpoint:' || endpoint.id, event.correlation_id, event.traceparent, event.actor_id, event.project_id
    from (select *, webhook_patterns(arrived.event) as patterns from arrived offset 0) as event
    join webhook_endpoints as endpoint
        on coalesce(endpoint.org_id, '') = coalesce(event.org_id, '') and endpoint.events && event.patterns
    order by event.id, endpoint.id;
    return null;
end $$;
create trigger webhook_fan_out after insert on webhook_events referencing new table as arrived
    for each statement execute function webhook_fan_out();

-- The endpoint that a row of this organisation names in its args, by name or by id.  Null: there is none of that name, or the id is
-- that of another organisation's.  An id that nobody has is what it is: a row that was dead may be retried after its endpoint is gone.
create function webhook_endpoint_id(org text, endpoint jsonb) returns bigint
language plpgsql stable security definer set search_path from current as $$
begin
    if jsonb_typeof(endpoint) = 'string' then
        return (select id from webhook_endpoints
                where coalesce(org_id, '') = coalesce(org, '') and name = endpoint #>> '{}'
                  and (select orgs is null or org = any (orgs) from job_own_orgs));
    elsif endpoint::text !~ '^[1-9][0-9]{0,17}$' then
        return 0;
    end if;
    return (select case when found.id is null or coalesce(found.org_id, '') = coalesce(org, '') then wanted end
            from cast(endpoint::text as bigint) as wanted left join webhook_endpoints as found on found.id = wanted);
end $$;

do $do$
begin
execute format($sql$
-- As before, and first what only webhooks to endpoints have.
-- A job of kind webhook that names no destination but an event is an event: it is inserted as one, with the rights of whoever
-- inserts it, and itself goes away.  What an event has no place for is refused and not lost.  An endpoint that is given by name
-- is looked up now, so that a name nobody has is an error here; and so is, from a login that is bound by policies, the id of
-- another organisation's: such rows would take turns in its lane before it shows that they may not be sent.  For the same
-- reason nobody may write an endpoint's lane on a row that does not go there.
-- Here and not in a trigger of its own, whose condition Postgres would read anew at each insert of any kind.
create or replace function jobs_insert() returns trigger language plpgsql as $$
declare
    nothing text;
    endpoint_id bigint;
    is_named boolean;
begin
    if new.kind operator(pg_catalog.=) 'webhook' and not pg_catalog.jsonb_exists(new.args, 'url') then
        if pg_catalog.jsonb_exists(new.args, 'endpoint') then
            is_named := pg_catalog.jsonb_typeof(new.args operator(pg_catalog.->) 'endpoint') operator(pg_catalog.=) 'string';
            if is_named or pg_catalog.row_security_active(tg_relid) then
                endpoint_id := %1$I.webhook_endpoint_id(new.org_id, new.args operator(pg_catalog.->) 'endpoint');
                if endpoint_id is null then
                    raise exception 'there is no endpoint %% for this row', new.args operator(pg_catalog.->) 'endpoint'
                        using errcode = 'foreign_key_violation', schema = tg_table_schema, table = tg_table_name,
                              constraint = 'jobs_webhook_endpoint_is_there', column = 'args';
                end if;
                if is_named then
                    new.args := pg_catalog.jsonb_set(new.args, '{endpoint}', pg_catalog.to_jsonb(endpoint_id));
                end if;
            end if;
        elsif pg_catalog.jsonb_typeof(new.args operator(pg_catalog.->) 'event') operator(pg_catalog.=) 'string' then
            if pg_catalog.num_nonnulls(new.unique_key, new.on_duplicate, new.postpone_until, new.lane, new.max_attempts,
                                       new.batch_id, new.worker_id, new.started_at, new.blocks_until) operator(pg_catalog.>) 0
               or new.state operator(pg_catalog.<>) 'ready' or new.gate operator(pg_catalog.<>) ''
               or new.attempt operator(pg_catalog.<>) 0 or new.crashes operator(pg_catalog.<>) 0
               or new.fence operator(pg_catalog.<>) 0 or new.aside or not pg_catalog.jsonb_exists(new.args, 'payload')
               or new.args operator(pg_catalog.-) 'event' operator(pg_catalog.-) 'payload' operator(pg_catalog.<>) '{}'
            then
                raise exception 'a webhook job without url and endpoint is an event, which has args event and payload alone, '
                    'and none of unique_key, on_duplicate, postpone_until, lane, max_attempts and batch_id'
                    using errcode = 'check_violation', schema = tg_table_schema, table = tg_table_name,
                          constraint = 'jobs_webhook_event_is_no_more_than_that';
            end if;
            insert into %1$I.webhook_events (org_id, event, payload, idempotency_key, ordering_key, queue, priority, run_at,
                                             expires_at, correlation_id, traceparent, actor_id, project_id)
            values (new.org_id, new.args operator(pg_catalog.->>) 'event',
                    (new.args operator(pg_catalog.->) 'payload')::pg_catalog.json, new.idempotency_key, new.ordering_key,
                    new.queue, new.priority, new.run_at, new.expires_at, new.correlation_id, new.traceparent, new.actor_id,
                    new.project_id);
            return null;
        end if;
    end if;
    if new.lane is not null and pg_catalog.starts_with(new.lane, 'endpoint:')
       and (new.kind operator(pg_catalog.=) 'webhook' and not pg_catalog.jsonb_exists(new.args, 'url') and new.lane
            operator(pg_catalog.=) ('endpoint:' operator(pg_catalog.||) (new.args operator(pg_catalog.->>) 'endpoint'))) is not true
    then
        raise exception 'lane %% is that of rows to this endpoint alone', new.lane
            using errcode = 'check_violation', schema = tg_table_schema, table = tg_table_name,
                  constraint = 'jobs_lane_of_an_endpoint_is_its_own', column = 'lane', hint = 'Leave lane out.';
    end if;
    if new.run_at operator(pg_catalog.<=) current_timestamp
       and new.state operator(pg_catalog.=) 'ready' and new.gate operator(pg_catalog.=) ''
       and new.attempt operator(pg_catalog.=) 0 and new.crashes operator(pg_catalog.=) 0 and new.fence operator(pg_catalog.=) 0
       and not new.aside and new.worker_id is null and new.started_at is null and new.blocks_until is null
       and new.idempotency_key is null and new.on_duplicate is null and new.batch_id is null
    then
        if (pg_catalog.current_setting('jobsd.hinted', true) operator(pg_catalog.=) %3$L
            or pg_catalog.abs(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) operator(pg_catalog.*) 1000
                   operator(pg_catalog.-) pg_catalog.pg_sequence_last_value(%2$L)) operator(pg_catalog.<) 128) is not true
        then
            nothing := %1$I.job_hint();
        end if;
        return new;
    end if;
    if (pg_catalog.current_setting('jobsd.hinted', true) operator(pg_catalog.=) %3$L) is not true then
        nothing := %1$I.job_hint();
    end if;
    if new.state operator(pg_catalog.<>) 'ready' or new.attempt operator(pg_catalog.<>) 0
       or new.crashes operator(pg_catalog.<>) 0 or new.fence operator(pg_catalog.<) 0
       or new.fence operator(pg_catalog.>) 1000000000 or new.gate operator(pg_catalog.<>) '' or new.aside
       or new.worker_id is not null or new.started_at is not null or new.blocks_until is not null
    then
        raise exception
            'state, attempt, fence, crashes, gate, worker_id, started_at, aside and blocks_until of jobs are set by the daemon alone'
            using errcode = 'check_violation', schema = tg_table_schema, table = tg_table_name,
                  constraint = 'jobs_engine_columns_are_not_given';
    end if;
    if new.run_at operator(pg_catalog.>) pg_catalog.clock_timestamp() then
        new.gate := 'later';
    end if;
    if new.idempotency_key is null and new.on_duplicate is null and new.batch_id is null then
        return new;
    end if;
    if new.on_duplicate operator(pg_catalog.=) 'refuse' then
        new.on_duplicate := null;
    elsif new.on_duplicate is not null and new.unique_key is null then
        raise exception 'on_duplicate of jobs means nothing without a unique_key'
            using errcode = 'check_violation', schema = tg_table_schema, table = tg_table_name,
                  constraint = 'jobs_on_duplicate_has_a_unique_key';
    elsif new.on_duplicate is not null and pg_catalog.row_security_active(tg_relid) then
        begin
            perform pg_catalog.set_config('jobsd.hinted', tg_table_schema, true); -- no hint of a row that goes again
            insert into %1$I.jobs (kind, args, queue, org_id, unique_key, ordering_key, lane, actor_id, project_id)
            values (new.kind, new.args, new.queue, new.org_id, new.unique_key, new.ordering_key, new.lane, new.actor_id,
                    new.project_id);
            raise exception 'allowed' using errcode = 'JB000';
        exception when sqlstate 'JB000' or unique_violation then
            null;
        end;
    end if;
    new.aside := new.idempotency_key is not null or new.on_duplicate is not null or new.batch_id is not null; -- calls jobs_keys
    return new;
end $$;
$sql$, current_schema(), quote_ident(current_schema()) || '.jobs_hint_clock', current_schema());
end $do$;

-- The delivery log says which endpoint and which event.
alter table webhook_deliveries add column endpoint_id bigint, add column event_id bigint;

-- As before, and: a webhook to an endpoint has the lane of that endpoint, so that two on one host do not wait for each other.
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
    end
$$;
