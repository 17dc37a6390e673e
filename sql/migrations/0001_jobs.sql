-- pre
-- The public interface: anyone may insert a row, in any language, inside their own transaction.  Two columns are enough.
-- Live rows only: what is finished moves to job_history, so this table and its indexes stay as small as the backlog.

-- Names are checked by domains, when a value is given, and not by the table's checks, which Postgres evaluates again at
-- every update of a row: these two patterns alone made a claim 9 µs a row dearer.
create domain job_kind as text
    constraint job_kind_has_known_characters check (value ~ '^[A-Za-z][A-Za-z0-9_.:-]{0,99}$');
create domain job_queue as text
    constraint job_queue_has_known_characters check (value ~ '^[A-Za-z0-9][A-Za-z0-9_.:@-]{0,127}$');

create table jobs (
    id              bigint generated always as identity primary key,
    kind            job_kind    not null,
    args            jsonb       not null default '{}',
    queue           job_queue   not null default 'default',
    org_id          text,
    priority        smallint    not null default 2,
    run_at          timestamptz not null default now(),
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
    created_at      timestamptz not null default now(),

    -- owned by the engine
    state           text        not null default 'ready',
    attempt         smallint    not null default 0,
    fence           int         not null default 0,  -- grows with every claim, rescue and return; never given twice
    crashes         smallint    not null default 0,  -- attempts whose worker died under them
    gate            text        not null default '', -- why a ready row stands outside its queue: 'kind:…', 'limit:…'
    worker_id       bigint,
    started_at      timestamptz,
    progress        jsonb,
    last_error      jsonb,

    constraint jobs_state_known check (state in ('ready', 'running')),
    constraint jobs_args_is_an_object check (jsonb_typeof(args) = 'object'),
    -- the first half is a look at a length word, and true for most rows whenever they are updated
    constraint jobs_args_at_most_256_kib check (pg_column_size(args) < 1000 or octet_length(args::text) <= 262144),
    constraint jobs_priority_1_to_4 check (priority between 1 and 4),
    constraint jobs_max_attempts_1_to_1000 check (max_attempts between 1 and 1000),
    constraint jobs_run_at_in_1970_to_9999 check (run_at >= '1970-01-01 00:00+00' and run_at < '9999-12-31 00:00+00'),
    constraint jobs_expires_at_in_1970_to_9999
        check (expires_at >= '1970-01-01 00:00+00' and expires_at < '9999-12-31 00:00+00'),
    constraint jobs_created_at_in_1970_to_9999
        check (created_at >= '1970-01-01 00:00+00' and created_at < '9999-12-31 00:00+00'),
    constraint jobs_org_id_has_no_control_characters check (org_id ~ '^[^\x01-\x1f\x7f]{1,128}$'),
    constraint jobs_unique_key_has_no_control_characters check (unique_key ~ '^[^\x01-\x1f\x7f]{1,255}$'),
    constraint jobs_idempotency_key_has_no_control_characters check (idempotency_key ~ '^[^\x01-\x1f\x7f]{1,255}$'),
    constraint jobs_ordering_key_has_no_control_characters check (ordering_key ~ '^[^\x01-\x1f\x7f]{1,255}$'),
    constraint jobs_lane_has_no_control_characters check (lane ~ '^[^\x01-\x1f\x7f]{1,255}$'),
    constraint jobs_correlation_id_has_no_control_characters check (correlation_id ~ '^[^\x01-\x1f\x7f]{1,128}$'),
    constraint jobs_actor_id_has_no_control_characters check (actor_id ~ '^[^\x01-\x1f\x7f]{1,128}$'),
    constraint jobs_project_id_has_no_control_characters check (project_id ~ '^[^\x01-\x1f\x7f]{1,128}$'),
    -- W3C Trace Context, version 00
    constraint jobs_traceparent_is_w3c check (traceparent ~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$')
) with (
    -- every row is updated once and deleted once: vacuum by count, at full speed, or the claim walks dead entries
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0.2,
    autovacuum_analyze_threshold = 5000
);

comment on table jobs is 'Work to be done.  insert into jobs (kind, args) values (…); the daemon does the rest.';
comment on column jobs.kind is 'Which handler runs it.';
comment on column jobs.args is 'A JSON object, checked against the kind''s schema before it runs; at most 256 KiB.';
comment on column jobs.priority is '1 is first, 4 is last.';
comment on column jobs.run_at is 'Not before, by the database''s clock.';
comment on column jobs.expires_at is 'Not after: then it is dead with reason expired.';
comment on column jobs.unique_key is 'At most one unfinished job per (kind, unique_key); use on conflict do nothing.';
comment on column jobs.idempotency_key is 'At most one job ever per (kind, idempotency_key); a second insert adds no row.';
comment on column jobs.ordering_key is 'One at a time, in id order, per (kind, ordering_key).';
comment on column jobs.lane is 'The destination whose limits apply; derived from args where it is null.';

-- What a claim reads: rows that may run now stand in gate '' of their queue; a row that no daemon serves or that a limit
-- holds back is moved to a gate of its own, where it costs the others nothing.
create index jobs_ready on jobs (queue, gate, priority, run_at, id) where state = 'ready';

-- What a worker holds: read when it dies, and for counts.
create index jobs_running on jobs (worker_id) where state = 'running';

create unique index jobs_unique_key on jobs (kind, unique_key) where unique_key is not null;

-- The head of each ordering key, and the guard that makes two running rows of one key impossible.
create index jobs_ordered on jobs (kind, ordering_key, id) where ordering_key is not null;
create unique index jobs_ordered_running on jobs (kind, ordering_key) where ordering_key is not null and state = 'running';

create index jobs_expiring on jobs (expires_at) where expires_at is not null;
