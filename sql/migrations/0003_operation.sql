-- pre
-- What the daemons know of each other and of what operators want.

create table job_workers (
    id           bigint generated always as identity primary key, -- never used twice, unlike a host name or a pid
    name         text        not null,
    version      text        not null,
    kinds        text[]      not null,
    queues       text[]      not null,                             -- patterns
    started_at   timestamptz not null default now(),
    heartbeat_at timestamptz not null default now(),
    lease_until  timestamptz not null,
    draining     boolean     not null default false
);

create table job_queues (
    name         text primary key,
    paused_at    timestamptz,
    paused_by    text,
    pause_reason text
);

create table job_schedules (
    name         text primary key,
    kind         text        not null,
    cron         text        not null,
    timezone     text        not null,
    last_tick_at timestamptz,
    paused_at    timestamptz,
    paused_by    text,
    created_at   timestamptz not null default now(),
    updated_at   timestamptz not null default now()
);

create table job_keys (
    kind       text        not null,
    key        text        not null,
    job_id     bigint      not null,
    created_at timestamptz not null default now(),
    primary key (kind, key)
);
create index job_keys_age on job_keys (created_at);

create table job_audit (
    id         bigint generated always as identity primary key,
    at         timestamptz not null default now(),
    actor      text        not null,
    action     text        not null,
    subject    text        not null,
    reason     text,
    detail     jsonb
);
create index job_audit_at on job_audit (at);

-- One row a token bucket or concurrency limit; `full_at` is the theoretical arrival time of GCRA: the bucket holds
-- (now + burst - full_at) of tokens.  Locked for the length of one short statement only.
create table job_limits (
    name    text        not null,
    key     text        not null,
    full_at timestamptz not null default 'epoch',
    primary key (name, key)
) with (fillfactor = 50);

create table job_limit_holds (
    name      text   not null,
    key       text   not null,
    worker_id bigint not null,
    held      int    not null check (held >= 0),
    primary key (name, key, worker_id)
) with (fillfactor = 50);

comment on table job_workers is 'The daemons that run now; rows of one whose lease_until has passed are rescued.';
comment on table job_queues is 'Queues an operator has spoken about; a queue needs no row here.';
comment on table job_audit is 'Who paused, retried, cancelled or deleted what, and why.';
