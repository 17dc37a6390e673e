-- pre
-- Where rows go when they end, one partition a day: pruned by dropping a table, never by deleting rows.

create table job_history (
    id              bigint      not null,
    kind            text        not null,
    args            jsonb       not null,
    queue           text        not null,
    org_id          text,
    priority        smallint    not null,
    run_at          timestamptz not null,
    expires_at      timestamptz,
    max_attempts    smallint,
    unique_key      text,
    idempotency_key text,
    ordering_key    text,
    lane            text,
    correlation_id  text,
    traceparent     text,
    actor_id        text,
    project_id      text,
    created_at      timestamptz not null,
    state           text        not null check (state in ('done', 'dead', 'cancelled')),
    attempt         smallint    not null,
    crashes         smallint    not null,
    worker_id       bigint,
    started_at      timestamptz,
    finished_at     timestamptz not null,
    progress        jsonb,
    last_error      jsonb,
    reason          text,
    result          jsonb
) partition by range (finished_at);

create index job_history_id on job_history (id);
create index job_history_dead on job_history (finished_at, id) where state = 'dead';
create table job_history_default partition of job_history default;

create table job_attempts (
    job_id         bigint      not null,
    attempt        smallint    not null,
    kind           text        not null,
    queue          text        not null,
    org_id         text,
    correlation_id text,
    worker_id      bigint,
    started_at     timestamptz,
    ended_at       timestamptz not null,
    outcome        text        not null check (outcome in ('retry', 'dead', 'crashed')),
    code           text,
    error          jsonb,
    retry_at       timestamptz
) partition by range (ended_at);

create index job_attempts_job on job_attempts (job_id, ended_at);
create table job_attempts_default partition of job_attempts default;

comment on table job_history is 'Finished jobs: done, dead or cancelled.';
comment on table job_attempts is 'Every attempt that failed: when, how, and when the next one was due.';

-- Live and finished rows together, for people: where is my job, and what came of it?
create view job_status as
    select id, kind, queue, org_id, priority, state, attempt, max_attempts, run_at, expires_at, created_at, started_at,
           null::timestamptz as finished_at, worker_id, lane, correlation_id, progress, last_error,
           case when state = 'ready' and gate <> '' then gate end as reason, null::jsonb as result
    from jobs
    union all
    select id, kind, queue, org_id, priority, state, attempt, max_attempts, run_at, expires_at, created_at, started_at,
           finished_at, worker_id, lane, correlation_id, progress, last_error, reason, result
    from job_history;
