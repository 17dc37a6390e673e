-- pre
-- What is monitored, and what each look at it found.

create table monitors (
    name          text        primary key check (name ~ '^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$'),
    org_id        text        check (org_id ~ '^[^\x01-\x1f\x7f]{1,128}$'),
    target        text        not null,
    state         text        not null default 'new' check (state in ('new', 'up', 'degraded', 'down')),
    since         timestamptz not null default now(),
    failures      int         not null default 0,
    troubles      int         not null default 0,
    answers       int         not null default 0,
    goods         int         not null default 0,
    told          text        check (told in ('degraded', 'down')),
    incidents     int         not null default 0,
    began_at      timestamptz,
    version       bigint      not null,
    outcome       text        not null check (outcome in ('ok', 'poor', 'failed', 'unknown')),
    code          text,
    reason        text,
    latency_ms    real,
    expires_at    timestamptz,
    checked_at    timestamptz not null default now()
);
create index monitors_age on monitors (checked_at);

comment on table monitors is 'What is monitored, how it is, and since when; written by the checks.';
comment on column monitors.since is 'When it came into its state.';
comment on column monitors.failures is 'Checks in a row that failed; likewise troubles (not ok), answers (did not fail), goods (ok).';
comment on column monitors.told is 'The worst state that people were told of since it was up; null: of none.';
comment on column monitors.incidents is 'How many incidents there were; `began_at`: since when one lasts.';
comment on column monitors.version is 'Grows with each check: a check that has read an older one changes nothing.';
comment on column monitors.expires_at is 'When its certificate ends.';

-- One row for each check, kept by days.
create table monitor_checks (
    job_id          bigint      not null,
    attempt         smallint    not null,
    org_id          text,
    correlation_id  text,
    monitor         text        not null,
    target          text        not null,
    outcome         text        not null check (outcome in ('ok', 'poor', 'failed', 'unknown')),
    code            text,
    reason          text,
    latency_ms      real,
    phases          jsonb,
    address         text,
    expires_at      timestamptz,
    state           text        not null,
    notice          text        check (notice in ('degraded', 'down', 'up')),
    ended_at        timestamptz not null default now(),
    next_attempt_at timestamptz
) partition by range (ended_at);
create index monitor_checks_monitor on monitor_checks (monitor, ended_at);
create index monitor_checks_job on monitor_checks (job_id);
create table monitor_checks_default partition of monitor_checks default
    with (autovacuum_freeze_min_age = 0, toast.autovacuum_freeze_min_age = 0); -- as the days, see job_partitions_settings

comment on table monitor_checks is 'What each look at what is monitored found.';
comment on column monitor_checks.phases is 'Milliseconds of each part: resolve, connect, tls, response, …';
comment on column monitor_checks.state is 'Of the monitor, after this check.';
comment on column monitor_checks.notice is 'What people were told because of it.';

-- What checks have found.  `said`: objects with the columns of monitor_checks, and of the monitor `version` as the check has read it
-- (0: there was none) and what the check makes of it; with a `notice` also `payload`, of the event jobsd.monitor_<notice> for endpoints
-- of its organisation and of none, and `mail`, the args of a row of kind email.  A check of a monitor that another check has written
-- since is kept and changes nothing, so nobody is told twice.  Locks the monitors in the order of their names; index monitors_pkey.
create function monitor_checks_said(said jsonb) returns int language plpgsql security definer
set search_path from current set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
    one record;
    counts boolean;
    counted int := 0;
begin
    for one in
        select * from jsonb_to_recordset(said) as s (job_id bigint, attempt smallint, org_id text, correlation_id text, monitor text,
            target text, version bigint, state text, was text, failures int, troubles int, answers int, goods int, told text,
            outcome text, code text, reason text, latency_ms real, phases jsonb, address text, expires_at timestamptz, notice text,
            payload jsonb, mail jsonb, retry_in_s float8)
        order by s.monitor, s.version
    loop
        counts := true;
        if one.version = 0 then
            insert into monitors (name, org_id, target, state, failures, troubles, answers, goods, told, incidents, began_at, version,
                outcome, code, reason, latency_ms, expires_at)
            values (one.monitor, one.org_id, one.target, one.state, one.failures, one.troubles, one.answers, one.goods, one.told,
                (one.told is not null)::int, case when one.troubles > 0 then now() end, 1,
                one.outcome, one.code, one.reason, one.latency_ms, one.expires_at)
            on conflict (name) do nothing;
        else
            update monitors set
                org_id = one.org_id, target = one.target, state = one.state, failures = one.failures, troubles = one.troubles,
                answers = one.answers, goods = one.goods, told = one.told, version = version + 1, checked_at = now(),
                since = case when state = one.state then since else now() end,
                incidents = incidents + (told is null and one.told is not null)::int,
                began_at = case when one.state in ('new', 'up') and one.troubles = 0 then null else coalesce(began_at, now()) end,
                outcome = one.outcome, code = one.code, reason = one.reason, latency_ms = one.latency_ms,
                expires_at = coalesce(one.expires_at, expires_at)
            where name = one.monitor and version = one.version;
        end if;
        counts := found;
        insert into monitor_checks (job_id, attempt, org_id, correlation_id, monitor, target, outcome, code, reason, latency_ms,
            phases, address, expires_at, state, notice, next_attempt_at)
        values (one.job_id, one.attempt, one.org_id, one.correlation_id, one.monitor, one.target, one.outcome, one.code, one.reason,
            one.latency_ms, one.phases, one.address, one.expires_at, case when counts then one.state else one.was end,
            case when counts then one.notice end, now() + one.retry_in_s * interval '1 second');
        counted := counted + counts::int;
        continue when not counts or one.notice is null;
        insert into webhook_events (org_id, event, payload, correlation_id)
        select org, 'jobsd.monitor_' || one.notice, one.payload::json, one.correlation_id
        from unnest(array[null, one.org_id]) with ordinality as to_whom (org, n)
        where org is not null or n = 1;
        if jsonb_typeof(one.mail) = 'object' then
            insert into jobs (kind, org_id, args, correlation_id) values ('email', one.org_id, one.mail, one.correlation_id);
        end if;
    end loop;
    return counted;
end $$;
