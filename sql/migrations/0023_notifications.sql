-- pre
-- Notifications by e-mail: templates, digests, and who is not written to any more.

-- An organisation's own template comes before the one for all (org_id null) of the same name.
create table email_templates (
    id         bigint      generated always as identity primary key,
    org_id     text        check (org_id ~ '^[^\x01-\x1f\x7f]{1,128}$'),
    name       text        not null,
    subject    text        not null,
    text       text,
    html       text,
    sender     text,
    reply_to   text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),

    constraint email_templates_name_has_known_characters check (name ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$'),
    constraint email_templates_subject_is_one_line
        check (subject ~ '[^ ]' and subject !~ '[\x01-\x1f\x7f]' and char_length(subject) <= 2000),
    constraint email_templates_have_text_or_html check (num_nonnulls(text, html) > 0),
    constraint email_templates_at_most_64_kib check (octet_length(text) <= 65536 and octet_length(html) <= 65536),
    constraint email_templates_sender_is_a_mailbox
        check (octet_length(sender) <= 1000 and sender !~ '[\x01-\x1f\x7f]' and sender ~ '[^@<> ]@[^@<> ]'),
    constraint email_templates_reply_to_is_a_mailbox
        check (octet_length(reply_to) <= 1000 and reply_to !~ '[\x01-\x1f\x7f]' and reply_to ~ '[^@<> ]@[^@<> ]')
);
create unique index email_templates_name on email_templates (coalesce(org_id, ''), name);

comment on table email_templates is 'Mails by name: insert into jobs (kind, args) values (''email'', ''{"to": …, "template": …, "data": {…}}'').';
comment on column email_templates.org_id is 'Whose it is; null: for all, where an organisation has none of its own by this name.';
comment on column email_templates.subject is 'A Jinja template of one line; data of the row are its variables.';
comment on column email_templates.html is 'A Jinja template; what is filled in is escaped.';
comment on column email_templates.sender is 'Who it is from, where the row says nothing; else email.from.';

create function email_templates_changed() returns trigger language plpgsql set search_path from current as $$
begin
    new.updated_at := now();
    return new;
end $$;
create trigger email_templates_changed before update on email_templates
    for each row execute function email_templates_changed();

-- Who is not written to.  `org_id` null: by rows without an organisation.  `list` null: at all; else by mails of that list only.
-- Rows of bounces stay for 30 days after they have expired, since the third one counts otherwise.
create table email_suppressions (
    id         bigint      generated always as identity primary key,
    org_id     text        check (org_id ~ '^[^\x01-\x1f\x7f]{1,128}$'),
    recipient  text        not null,
    list       text        check (list ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$'),
    reason     text        not null default 'manual'
               check (reason in ('bounce', 'mailbox_full', 'unsubscribed', 'complaint', 'manual')),
    detail     text        check (octet_length(detail) <= 4096),
    bounces    timestamptz[] not null default '{}',
    expires_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),

    constraint email_suppressions_recipient_is_an_address_in_lower_case
        check (octet_length(recipient) <= 254 and recipient ~ '^[^\x01-\x20\x7f@<>A-Z]+@[^\x01-\x20\x7f@<>A-Z]+$'),
    constraint email_suppressions_at_most_three_bounces check (cardinality(bounces) <= 3)
);
create unique index email_suppressions_recipient on email_suppressions (coalesce(org_id, ''), recipient, coalesce(list, ''));
create index email_suppressions_expired on email_suppressions (expires_at) where expires_at is not null;

comment on table email_suppressions is 'Who is not written to, by organisation; delete a row, and he is again.';
comment on column email_suppressions.list is 'By mails of this list only; null: by none but those with "security": true.';
comment on column email_suppressions.bounces is 'When mail to him came back, the last three times in 30 days.';
comment on column email_suppressions.expires_at is 'Until then; null: until it is lifted.';

-- The log says who was left out, and what came back.  Partitions that were attached have the check as their own too.
do $do$
declare
    place regclass;
begin
    alter table email_deliveries drop constraint email_deliveries_outcome_check;
    for place in select inhrelid::regclass from pg_inherits where inhparent = 'email_deliveries'::regclass loop
        execute format('alter table %s drop constraint if exists email_deliveries_outcome_check', place);
    end loop;
end $do$;
alter table email_deliveries
    add column bounced_at timestamptz,
    add constraint email_deliveries_outcome_check
        check (outcome in ('delivered', 'soft', 'hard', 'unknown', 'deferred', 'suppressed', 'bounced')) not valid;
comment on column email_deliveries.bounced_at is 'When a bounce of it was taken in: the relay had taken it, and nobody got it.';

-- Digests.  Rows with the same organisation, key and mail are one digest: the first opens a window, at whose end one mail has
-- them all.  `digest` and `job_id` are the engine's: which digest it is in, and the job whose mail it is in.
create table email_digest_items (
    id         bigint      generated always as identity primary key,
    org_id     text        check (org_id ~ '^[^\x01-\x1f\x7f]{1,128}$'),
    key        text        not null default '' check (key ~ '^[^\x01-\x1f\x7f]{0,200}$'),
    email      jsonb       not null,
    item       jsonb       not null default '{}',
    gather     interval    not null default '5 minutes',
    most       int         not null default 100,
    queue      job_queue   not null default 'default',
    priority   smallint    not null default 2 check (priority between 1 and 4),
    digest     text        not null default '',
    job_id     bigint,
    created_at timestamptz not null default now(),

    constraint email_digest_items_email_is_of_a_template
        check (jsonb_typeof(email) = 'object' and jsonb_typeof(email -> 'to') is not null
               and coalesce(jsonb_typeof(email -> 'template') = 'string', false) and not email ? 'digest'),
    constraint email_digest_items_email_at_most_64_kib check (octet_length(email::text) <= 65536),
    constraint email_digest_items_item_at_most_16_kib check (octet_length(item::text) <= 16384),
    constraint email_digest_items_gather_up_to_7_days check (gather between '0' and '7 days'),
    constraint email_digest_items_most_1_to_1000 check (most between 1 and 1000)
);
-- What of a digest is in no mail yet.
create index email_digest_items_open on email_digest_items (digest, id) where job_id is null;
create index email_digest_items_job on email_digest_items (job_id, id) where job_id is not null;
create index email_digest_items_age on email_digest_items (created_at);

comment on table email_digest_items is 'Things to be told of together: insert into email_digest_items (org_id, email, item) values (…).';
comment on column email_digest_items.key is 'What it is about: things with another key are in another mail.';
comment on column email_digest_items.email is 'Args of the mail: to, template, data and whatever else kind email takes.';
comment on column email_digest_items.item is 'One of the template''s `items`.';
comment on column email_digest_items.gather is 'How long after the first item the mail is sent.';
comment on column email_digest_items.most is 'So many items are a mail at once.';

create function email_digest_items_placed() returns trigger language plpgsql set search_path from current as $$
begin
    new.digest := encode(sha256(convert_to(concat_ws(E'\x1f', coalesce(new.org_id, ''), new.key, new.email::text), 'UTF8')), 'hex');
    new.job_id := null;
    return new;
end $$;
create trigger email_digest_items_placed before insert on email_digest_items
    for each row execute function email_digest_items_placed();

-- A job for what waits in a digest.  Its key is given up when it begins (on_duplicate), so that the next item makes another.
-- Whether it was made: else there is one with that key.  index jobs_unique_key
create function email_digest_job(
    digest text, org text, place text, class smallint, email jsonb, most int, due timestamptz, suffix text default ''
) returns boolean language plpgsql set search_path from current as $$
declare
    made bigint;
begin
    insert into jobs (kind, org_id, queue, priority, unique_key, run_at, args)
    values ('email', org, place, class, 'digest:' || digest || suffix, due,
            email || jsonb_build_object('digest', jsonb_build_object('id', digest, 'most', most)))
    on conflict (kind, unique_key) where unique_key is not null do nothing
    returning id into made;
    update jobs set on_duplicate = 'replace' where id = made;
    return made is not null;
end $$;

-- Every item has a job that begins after it is committed: one that this statement makes, or one that waits and that it locks, so
-- that no claim takes it before this transaction ends.  The lock is shared: who adds to a digest does not wait for others who do,
-- only for whoever is opening it.  A digest that is full has a second job, which is due at once.  With the owner's rights:
-- whoever may insert items of an organisation may have them mailed.  Digests in order, so that two inserts of several do not wait
-- for each other.  indexes jobs_unique_key, email_digest_items_open
create function email_digest_items_arrived() returns trigger language plpgsql security definer
set search_path from current set enable_seqscan = off as $$
declare
    one record;
begin
    for one in
        select distinct on (digest) digest, org_id, email, gather, most, queue, priority from arrived order by digest, id
    loop
        loop
            perform from jobs where kind = 'email' and unique_key = 'digest:' || one.digest and state = 'ready' for share;
            exit when found or email_digest_job(one.digest, one.org_id, one.queue, one.priority, one.email, one.most,
                                                clock_timestamp() + one.gather);
        end loop;
        if (select count(*) = one.most
            from (select from email_digest_items where digest = one.digest and job_id is null limit one.most) as waiting)
        then
            perform email_digest_job(one.digest, one.org_id, one.queue, one.priority, one.email, one.most,
                                     clock_timestamp(), ':full');
        end if;
    end loop;
    return null;
end $$;
create trigger email_digest_items_arrived after insert on email_digest_items referencing new table as arrived
    for each statement execute function email_digest_items_arrived();

-- As before, and: who may write templates, suppressions or digests would have those of everybody.
create or replace function job_org_members_kept() returns trigger language plpgsql security definer set search_path from current as $$
begin
    if exists (select from pg_roles where oid = old.role::oid)
        and not exists (select from job_org_members where role = old.role)
        and (has_table_privilege(old.role::oid, 'job_status', 'select')
             or exists (select from unnest(array['jobs', 'webhook_endpoints', 'email_templates', 'email_suppressions',
                                                'email_digest_items']) as place
                        where has_any_column_privilege(old.role::oid, place, 'select, insert, update')))
    then
        raise exception '% would belong to every organisation, since it is left with none', old.role
            using errcode = 'check_violation', schema = tg_table_schema, table = tg_table_name,
                  constraint = 'job_org_members_leave_no_role_open',
                  hint = 'Drop the role, or take its rights on the tables of jobsd away first.';
    end if;
    return null;
end $$;
