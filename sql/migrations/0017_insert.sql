-- pre
-- Five triggers of an insert are two, and ask their questions in fewer words.

-- A trigger costs an insert 6,000 instructions, an operator in it 1,500 (PL/pgSQL prepares its expressions anew in each
-- transaction), a `when` 8,000 (Postgres reads its text anew at every statement); null tests are free.  So one function asks
-- first for all that no plain row has, then for the hint's turn, and is done.  It needs no rights, sets no search_path, and names
-- everything by schema, operators too.
drop trigger jobs_hint on jobs;
drop trigger jobs_engine_columns on jobs;
drop function jobs_hint();
drop function jobs_engine_columns();

-- Send a hint, unless this transaction has sent one or another client that saw the same old time is sending it: of those the
-- one sends that moves the turn on from where it saw it.  Then there is silence for 5 ms; where no worker lives who
-- could hear it, no hint is sent, and there is silence for 250.  The clock stands 128 ms before a silence ends, so that one
-- comparison tells a silence from a clock that was put back.  Anybody may call it, as anybody may call pg_notify.
-- Assignments, since each `select` and `perform` would set up an executor.
create or replace function job_hint() returns void language plpgsql security definer set search_path from current as $$
declare
    clock_ms bigint := (date_part('epoch', clock_timestamp()) * 1000)::bigint;
    turn bigint := pg_sequence_last_value('jobs_hint_turn');
    nothing text;
begin
    if current_setting('jobsd.hinted', true) = current_schema()
       or abs(clock_ms - pg_sequence_last_value('jobs_hint_clock')) < 128 or nextval('jobs_hint_turn') <> turn + 1
    then
        return;
    end if;
    if exists (select from job_workers where lease_until > now()) then
        nothing := concat(setval('jobs_hint_clock', clock_ms + 5 - 128), set_config('jobsd.hinted', current_schema(), true),
                          pg_notify(left('jobsd:' || current_schema(), 63), ''));
    else
        nothing := setval('jobs_hint_clock', clock_ms + 250 - 128);
    end if;
end $$;

-- A new worker ends the silence.
create function job_workers_hear() returns trigger language plpgsql security definer set search_path from current as $$
begin
    perform setval('jobs_hint_clock', 0);
    return null;
end $$;
create trigger job_workers_hear after insert on job_workers for each statement execute function job_workers_hear();

do $do$
begin
execute format($sql$
-- What every row meets.
-- Wake the daemons, at most once in 5 ms over all producers, and once in a transaction, at its first row (see job_hint).
-- Refuse a row that comes with a history: its attempt at the top of its range, say, could not be claimed, and every claim
-- of its queue would fail at it.  A fence may be given: a row brought back to life must outrank its former life's writers.
-- A row of the future stands at a gate of its own.  A row that asks to be merged may never be inserted, so where a policy
-- decides what this producer may insert, it is asked here, with a row that is undone at once.
create function jobs_insert() returns trigger language plpgsql as $$
declare
    nothing text;
begin
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

-- By name before those of keys: what it refuses leaves no key behind, and a row that is merged has its gate.
create trigger jobs_insert before insert on jobs for each row execute function jobs_insert();

-- Conditions of triggers are dearer than what they ask: Postgres reads their text anew at every statement.  So jobs_insert
-- marks a row with keys or a batch by a column that no such row has, and one trigger asks for that in the fewest words.
drop trigger jobs_children on jobs;
drop trigger jobs_keys on jobs;
drop trigger jobs_keys_kept on jobs;
drop function jobs_children();

-- Idempotency keys that this transaction has written for rows that a unique key may keep out.  At its end it is seen
-- whether they got in; nobody else ever sees a row of this.
create table job_keys_unsure (
    kind   text   not null,
    key    text   not null,
    job_id bigint not null,
    primary key (kind, key)
);
comment on table job_keys_unsure is 'Idempotency keys that are kept if their row is there when the transaction ends.';

create function job_keys_settled() returns trigger language plpgsql security definer set search_path from current as $$
declare
    given bigint;
begin
    delete from job_keys_unsure where kind = new.kind and key = new.key returning job_id into given;
    delete from job_keys
    where kind = new.kind and key = new.key and job_id = given and not exists (select from jobs where id = given);
    return null;
end $$;

create constraint trigger job_keys_settled after insert on job_keys_unsure
    deferrable initially deferred for each row execute function job_keys_settled();

-- One at a time takes what a row with keys asks for, as the table's owner.  What was asked, in words:
-- Who joins a batch keeps it from ending until he commits, by a lock that ends do not wait for, nor joiners for each other.
-- Who works for one organisation joins batches of that organisation only.  Which those are is the login's (see job_own_orgs); a
-- role that was set, which is not seen from here, could be narrower, so it takes the row's organisation.
-- An idempotency key that was there already: no row, no error.  A row that its unique key keeps out leaves no idempotency
-- key behind, which would shut out the next try, in this transaction or another: who is kept out by a row that another client
-- has not committed yet is not known before the insert itself.
-- `on_duplicate`: what happens to the row is decided while no other client decides about the same key, and a row that waits
-- is locked before it is changed; one that a claim has just taken has given its key up, and this one comes after it.
create or replace function jobs_keys() returns trigger language plpgsql security definer set search_path from current as $$
declare
    merges boolean := coalesce(new.on_duplicate <> 'ignore', false);
    replaces boolean := coalesce(new.on_duplicate in ('replace', 'replace_and_postpone'), false);
    postpones boolean := coalesce(new.on_duplicate in ('postpone', 'replace_and_postpone'), false);
    waiting bigint;
begin
    new.aside := false; -- the mark
    if new.batch_id is not null then
        perform from job_batches
        where id = new.batch_id and ended_at is null
          and (select orgs is null or org_id = any (orgs) from job_own_orgs)
          and (current_setting('role') = 'none' or org_id is null or org_id = new.org_id)
        for key share;
        if not found then
            raise exception 'there is no open batch % for this row', new.batch_id
                using errcode = 'foreign_key_violation', schema = tg_table_schema, table = tg_table_name,
                      constraint = 'jobs_batch_is_open', column = 'batch_id',
                      hint = 'Insert children in the transaction that inserts their batch, or while another child of it runs.';
        end if;
    end if;
    if new.idempotency_key is not null then
        insert into job_keys (kind, key, job_id) values (new.kind, new.idempotency_key, new.id) on conflict do nothing;
        if not found then
            update job_keys_unsure as mine set job_id = new.id
            where kind = new.kind and key = new.idempotency_key and not exists (select from jobs where id = mine.job_id);
            if not found then
                return null;
            end if;
            update job_keys set job_id = new.id where kind = new.kind and key = new.idempotency_key;
        elsif new.unique_key is not null then
            insert into job_keys_unsure (kind, key, job_id) values (new.kind, new.idempotency_key, new.id);
        end if;
    end if;
    if new.on_duplicate is null then
        return new;
    end if;

    insert into job_debounces as mine (kind, unique_key, job_id) values (new.kind, new.unique_key, new.id)
    on conflict (kind, unique_key) do update set job_id = mine.job_id;
    if not merges and exists (select from jobs where kind = new.kind and unique_key = new.unique_key) then
        return null;
    end if;
    select id into waiting from jobs
    where kind = new.kind and unique_key = new.unique_key and state = 'ready' and org_id is not distinct from new.org_id
    for no key update;
    if not found then
        update job_debounces set job_id = new.id where kind = new.kind and unique_key = new.unique_key and job_id <> new.id;
        return new;
    end if;
    update jobs
    set args           = case when replaces then new.args else jobs.args end,
        priority       = case when replaces then new.priority else jobs.priority end,
        expires_at     = case when replaces then new.expires_at else jobs.expires_at end,
        lane           = case when replaces then new.lane else jobs.lane end,
        correlation_id = case when replaces then new.correlation_id else jobs.correlation_id end,
        traceparent    = case when replaces then new.traceparent else jobs.traceparent end,
        actor_id       = case when replaces then new.actor_id else jobs.actor_id end,
        project_id     = case when replaces then new.project_id else jobs.project_id end,
        run_at         = next_run_at,
        -- other args may have another destination, whose gate is found anew
        gate           = case when jobs.gate in ('', 'later') or replaces and jobs.gate ~ '^(lane|limit):'
                              then case when next_run_at > clock_timestamp() then 'later' else '' end
                              else jobs.gate end
    from (select case when postpones
                      then least(new.run_at, greatest(run_at, coalesce(postpone_until, created_at + interval '1 hour')))
                      else run_at end as next_run_at
          from jobs where id = waiting) as decided
    where id = waiting;
    update job_debounces set job_id = waiting where kind = new.kind and unique_key = new.unique_key and job_id <> waiting;
    if new.idempotency_key is not null then
        update job_keys set job_id = waiting where kind = new.kind and key = new.idempotency_key;
    end if;
    return null;
end $$;

create trigger jobs_keys before insert on jobs for each row when (new.aside) execute function jobs_keys();
