-- pre
-- Domains whose owners prove that they are theirs, and keep their records right.  One insert is enough: it brings the first check.

-- 32 letters of base32, 160 bits, out of the 244 random bits of two uuids.
create function domain_token() returns text language sql volatile set search_path from current as $$
    select string_agg(substr('abcdefghijklmnopqrstuvwxyz234567', 1 + (get_byte(made.random, n) & 31), 1), '' order by n)
    from (select sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())) as random offset 0) as made,
         generate_series(0, 31) as n
$$;

-- What is above the empty line is the owner's, the rest the daemons'.  `next_check_at` null: nobody looks any more.
create table domains (
    id             bigint      generated always as identity primary key,
    org_id         text        check (char_length(org_id) between 1 and 128 and org_id !~ '[\x01-\x1f\x7f]'),
    domain         text        not null,
    token          text        not null default domain_token() check (token ~ '^[a-z2-7]+$' and char_length(token) between 26 and 128),
    challenge      text        not null default '_jobsd-challenge',
    expect         jsonb       not null default '[]',
    contact        text,
    queue          job_queue   not null default 'default',

    state          text        not null default 'pending' check (state in ('pending', 'verified', 'degraded', 'failed', 'expired')),
    since          timestamptz not null default now(),
    created_at     timestamptz not null default now(),
    verified_at    timestamptz,
    checked_at     timestamptz,
    checks         int         not null default 0,
    next_check_at  timestamptz default now() + interval '1 hour',
    slot           real        not null generated always as ((hashtextextended(domain, 0) & 16777215)::real / 16777216) stored,
    verdict        text,
    conclusion     text,
    records        jsonb,
    name_servers   text[],
    unsure         int         not null default 0,
    mismatch_since timestamptz,
    mismatch_at    timestamptz,
    mismatch_s     float8      not null default 0,
    noticed        text,
    noticed_at     timestamptz,
    warned_at      timestamptz,
    asked_at       timestamptz,
    asked_by       bigint,

    constraint domains_domain_is_in_a_labels
        check (domain ~ '^[a-z0-9_-]+(\.[a-z0-9_-]+)*$' and domain !~ '[^.]{64}'
               and char_length(domain) + char_length(challenge) <= 252),
    constraint domains_challenge_is_a_label_with_an_underscore
        check (challenge ~ '^_[a-z0-9_-]+$' and char_length(challenge) <= 63),
    constraint domains_expect_is_a_list_of_records
        check (jsonb_typeof(expect) = 'array' and jsonb_array_length(expect) <= 19 and octet_length(expect::text) <= 65536
               and not jsonb_path_exists(expect, '$[*] ? (@.type() != "object" || !exists(@.type) || !exists(@.value))')),
    constraint domains_contact_is_an_address
        check (octet_length(contact) <= 254 and contact ~ '^[^\x01-\x20\x7f,;<>()"@]+@[^\x01-\x20\x7f,;<>()"@]+$')
) with (fillfactor = 80);

create unique index domains_name on domains (coalesce(org_id, ''), domain);
-- One organisation's record never verifies another's, also where tokens were brought along.
create unique index domains_token on domains (token, domain);
create index domains_due on domains (next_check_at) where next_check_at is not null;

comment on table domains is 'Domains to be verified: insert into domains (org_id, domain) values (…) returning challenge, token.';
comment on column domains.domain is 'In lower case, as A-labels (xn--…), without the final dot.';
comment on column domains.token is 'To be published as a TXT record "token=…" at <challenge>.<domain>; 160 random bits, per organisation and domain.';
comment on column domains.expect is 'Records beside the token, as dns_check takes them: [{"type": "MX", "value": "mx.example.net"}].';
comment on column domains.contact is 'Who is told by e-mail when it is verified, in trouble, or given up.';
comment on column domains.since is 'When it came to this state.';
comment on column domains.verified_at is 'When it was verified for the first time.';
comment on column domains.checks is 'Checks that have counted; what was seen by one that began before another had ended does not.';
comment on column domains.slot is 'The part of a day, 0 to 1, after which its daily check lies.';
comment on column domains.conclusion is 'What its owner is told of the last check.';
comment on column domains.unsure is 'Checks in a row that could not tell.';
comment on column domains.mismatch_since is 'Since then its own name servers have not had what they should.';
comment on column domains.mismatch_s is 'Of that time, what lies between two checks in a row that saw so.';
comment on column domains.noticed is 'What its owner was told last.';
comment on column domains.asked_by is 'The job that checks it now.';

-- Rows that a login of the application brings are in the one form; whoever changes what is to be published asks for a check.
create function domains_written() returns trigger language plpgsql as $$
begin
    if tg_op operator(pg_catalog.=) 'INSERT' then
        new.domain := pg_catalog.rtrim(pg_catalog.lower(new.domain), '.');
        return new;
    end if;
    if new.org_id is distinct from old.org_id or new.domain operator(pg_catalog.<>) old.domain then
        raise exception 'a domain stays what it is; delete the row, and insert another'
            using errcode = 'check_violation', schema = tg_table_schema, table = tg_table_name,
                  constraint = 'domains_stay_what_they_are';
    end if;
    if new.expect operator(pg_catalog.<>) old.expect or new.token operator(pg_catalog.<>) old.token
       or new.challenge operator(pg_catalog.<>) old.challenge
    then
        new.checks := old.checks operator(pg_catalog.+) 1; -- what is being seen now was not asked for this
        new.next_check_at := pg_catalog.now();
        if new.state operator(pg_catalog.=) 'expired' then
            new.state := 'pending';
            new.since := pg_catalog.now();
        end if;
    end if;
    return new;
end $$;
create trigger domains_written before insert or update of org_id, domain, expect, token, challenge on domains
    for each row execute function domains_written();

-- The first check of each, in the same transaction; a crowd is spread over the time that a thousand a minute take.  With the owner's
-- rights: who registers domains need not be allowed any other job.  `unique_key` is what the plan finds the job by; it has no
-- colon, so no organisation's key can be in its way.
create function domains_arrived() returns trigger language plpgsql security definer set search_path from current as $$
begin
    insert into jobs (kind, args, queue, org_id, unique_key, run_at)
    select 'domain_check', jsonb_build_object('domain', domain, 'id', id), queue, org_id, id::text,
           now() + greatest(row_number() over (order by id) - 100, 0) * interval '60 ms'
    from arrived order by id;
    return null;
end $$;
create trigger domains_arrived after insert on domains referencing new table as arrived
    for each statement execute function domains_arrived();

-- The plan's clock: one row, which says how much of this moment's checks is spent.
create table domain_plan (
    only_one   boolean     primary key default true check (only_one),
    planned_at timestamptz not null default now()
) with (fillfactor = 50);
insert into domain_plan default values;
comment on table domain_plan is 'Until when the checks that dns.domains.per_minute allows are spent.';

alter table domain_checks
    add column domain_id bigint,
    add column state_before text,
    add column state_after text,
    add column conclusion text;
comment on column domain_checks.state_after is 'Of a registered domain: what this check left it in.';
comment on column domain_checks.conclusion is 'What its owner is told.';

-- What checks have come to.  `said`: objects with `domain_id`, `checks` (as many as had counted when it began: if more have, this
-- one is only noted), `step` (the columns as the check leaves them; with another `token` if it asks for one), what the log has of it, and, where
-- its owner is told, `notice` with the `payload` of an event and `mail`, the args of one.  The step and the notice are one
-- commit with the end of the job, so nothing is told twice or not at all.  Events go to endpoints of its organisation, and of none.
-- Locks the domains from the lowest id up; index domains_pkey.
create function domains_said(said jsonb) returns int language plpgsql security definer
set search_path from current set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
    one record;
    took boolean;
    taken int := 0;
begin
    for one in
        select s.*, d.org_id as org, d.domain, d.state as state_before
        from jsonb_to_recordset(said) as s (domain_id bigint, checks int, job_id bigint, attempt smallint, correlation_id text,
            verdict text, records jsonb, servers jsonb, duration_ms real, conclusion text, step jsonb, notice text, payload json,
            mail jsonb)
        join domains as d on d.id = s.domain_id
        order by d.id for no key update of d
    loop
        update domains as d
        set state = step.state, since = step.since, verified_at = step.verified_at, checked_at = now(), checks = d.checks + 1,
            next_check_at = step.next_check_at, verdict = one.verdict, conclusion = one.conclusion, records = one.records,
            name_servers = coalesce(step.name_servers, d.name_servers), unsure = step.unsure, mismatch_since = step.mismatch_since,
            mismatch_at = step.mismatch_at, mismatch_s = step.mismatch_s, noticed = step.noticed, noticed_at = step.noticed_at,
            warned_at = step.warned_at, asked_by = null, token = coalesce(step.token, d.token)
        from jsonb_to_record(one.step) as step (state text, since timestamptz, verified_at timestamptz, next_check_at timestamptz,
            name_servers text[], unsure int, mismatch_since timestamptz, mismatch_at timestamptz, mismatch_s float8, noticed text,
            noticed_at timestamptz, warned_at timestamptz, token text)
        where d.id = one.domain_id and d.checks = one.checks;
        took := found;
        insert into domain_checks (job_id, attempt, org_id, correlation_id, domain, domain_id, verdict, records, servers,
            duration_ms, conclusion, state_before, state_after, next_attempt_at)
        values (one.job_id, one.attempt, one.org, one.correlation_id, one.domain, one.domain_id, one.verdict, one.records,
            one.servers, one.duration_ms, one.conclusion, one.state_before,
            case when took then one.step ->> 'state' else one.state_before end,
            case when took then (one.step ->> 'next_check_at')::timestamptz end);
        if not took then
            update domains set asked_by = null where id = one.domain_id and asked_by = one.job_id;
            continue;
        end if;
        taken := taken + 1;
        if one.payload is not null then
            insert into webhook_events (org_id, event, payload, correlation_id)
            select org, 'domain.' || one.notice, one.payload, one.correlation_id
            from unnest(array[null, one.org]) with ordinality as to_whom (org, n)
            where org is not null or n = 1;
        end if;
        if one.mail is not null then
            insert into jobs (kind, org_id, args, correlation_id) values ('email', one.org, one.mail, one.correlation_id);
        end if;
    end loop;
    return taken;
end $$;

-- As before, and: who may register domains would have those of everybody.
create or replace function job_org_members_kept() returns trigger language plpgsql security definer set search_path from current as $$
begin
    if exists (select from pg_roles where oid = old.role::oid)
        and not exists (select from job_org_members where role = old.role)
        and (has_table_privilege(old.role::oid, 'job_status', 'select')
             or exists (select from unnest(array['jobs', 'webhook_endpoints', 'email_templates', 'email_suppressions',
                                                'email_digest_items', 'domains']) as place
                        where has_any_column_privilege(old.role::oid, place, 'select, insert, update')))
    then
        raise exception '% would belong to every organisation, since it is left with none', old.role
            using errcode = 'check_violation', schema = tg_table_schema, table = tg_table_name,
                  constraint = 'job_org_members_leave_no_role_open',
                  hint = 'Drop the role, or take its rights on the tables of jobsd away first.';
    end if;
    return null;
end $$;
