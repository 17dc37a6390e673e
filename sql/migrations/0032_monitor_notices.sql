-- pre
-- What monitors tell does not wait behind newsletters, and of old counts and old certificates nothing is told.

-- What checks have found.  `said`: objects with the columns of monitor_checks, and of the monitor `version` as the check has read it
-- (0: there was none) and what the check makes of it; with a `notice` also `payload`, of the event jobsd.monitor_<notice> for endpoints
-- of its organisation and of none, and `mail`, the args of a row of kind email.  A check of a monitor that another check has written
-- since is kept and changes nothing, so nobody is told twice.  Such mail goes before all other.  An incident
-- begins with the first check that was not ok since it was up; the end of a certificate is forgotten with the first good check without
-- one.  Locks the monitors in the order of their names; index monitors_pkey.
create or replace function monitor_checks_said(said jsonb) returns int language plpgsql security definer
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
                began_at = case when one.state not in ('new', 'up') or one.troubles > 1 then coalesce(began_at, now())
                    when one.troubles = 1 then now() end,
                outcome = one.outcome, code = one.code, reason = one.reason, latency_ms = one.latency_ms,
                expires_at = case when one.outcome in ('ok', 'poor') then one.expires_at else coalesce(one.expires_at, expires_at) end
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
            insert into jobs (kind, org_id, priority, args, correlation_id)
            values ('email', one.org_id, 1, one.mail, one.correlation_id);
        end if;
    end loop;
    return counted;
end $$;
