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

-- As before, and: who may write templates, suppressions or digests would have those of everybody.
create or replace function job_org_members_kept() returns trigger language plpgsql security definer set search_path from current as $$
begin
    if exists (select from pg_roles where oid = old.role::oid)
        and not exists (select from job_org_members where role = old.role)
        and (has_table_privilege(old.role::oid, 'job_status', 'select')
             or exists (select from unnest(array['jobs', 'webhook_endpoints', 'email_templates', 'email_suppressions']) as place
                        where has_any_column_privilege(old.role::oid, place, 'select, insert, update')))
    then
        raise exception '% would belong to every organisation, since it is left with none', old.role
            using errcode = 'check_violation', schema = tg_table_schema, table = tg_table_name,
                  constraint = 'job_org_members_leave_no_role_open',
                  hint = 'Drop the role, or take its rights on the tables of jobsd away first.';
    end if;
    return null;
end $$;
