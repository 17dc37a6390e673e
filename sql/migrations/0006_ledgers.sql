-- pre
-- One row for each attempt of a channel: written in the same commit as the attempt's outcome.

create table webhook_deliveries (
    job_id             bigint      not null,
    attempt            smallint    not null,
    org_id             text,
    correlation_id     text,
    endpoint           text,
    event              text,
    url                text        not null,
    outcome            text        not null check (outcome in ('ok', 'retry', 'dead', 'unknown', 'blocked')),
    code               text,
    status             int,
    address            text,
    phases             jsonb,
    duration_ms        real,
    request_bytes      int,
    response_headers   jsonb,
    response_body      text,
    response_truncated boolean     not null default false,
    ended_at           timestamptz not null default now(),
    next_attempt_at    timestamptz
) partition by range (ended_at);
create index webhook_deliveries_job on webhook_deliveries (job_id);
create index webhook_deliveries_org on webhook_deliveries (org_id, ended_at) where org_id is not null;
create table webhook_deliveries_default partition of webhook_deliveries default;

create table email_deliveries (
    job_id             bigint      not null,
    attempt            smallint    not null,
    org_id             text,
    correlation_id     text,
    recipient          text        not null,
    relay              text,
    message_id         text,
    outcome            text        not null check (outcome in ('delivered', 'soft', 'hard', 'unknown', 'deferred')),
    code               text,
    smtp_code          int,
    enhanced           text,
    reply              text,
    phase              text,
    duration_ms        real,
    possible_duplicate boolean     not null default false,
    ended_at           timestamptz not null default now(),
    next_attempt_at    timestamptz
) partition by range (ended_at);
create index email_deliveries_job on email_deliveries (job_id);
create index email_deliveries_recipient on email_deliveries (recipient, ended_at);
create table email_deliveries_default partition of email_deliveries default;

create table domain_checks (
    job_id          bigint      not null,
    attempt         smallint    not null,
    org_id          text,
    correlation_id  text,
    domain          text        not null,
    verdict         text        not null check (verdict in ('match', 'mismatch', 'absent', 'indeterminate')),
    records         jsonb       not null,
    servers         jsonb,
    duration_ms     real,
    ended_at        timestamptz not null default now(),
    next_attempt_at timestamptz
) partition by range (ended_at);
create index domain_checks_domain on domain_checks (domain, ended_at);
create index domain_checks_job on domain_checks (job_id);
create table domain_checks_default partition of domain_checks default;
