-- pre
-- Who a row is: keys that make an insert the same as an earlier one, keys that put rows in order, and what an insert costs.
-- A producer still needs no right but INSERT on jobs, and pays only for what its row asks for.

-- A bounded repetition makes a regular expression slow: 8 µs a row, of the two.
alter domain job_kind drop constraint job_kind_has_known_characters;
alter domain job_kind add constraint job_kind_has_known_characters
    check (octet_length(value) <= 100 and value ~ '^[A-Za-z][A-Za-z0-9_.:-]*$');
alter domain job_queue drop constraint job_queue_has_known_characters;
alter domain job_queue add constraint job_queue_has_known_characters
    check (octet_length(value) <= 128 and value ~ '^[A-Za-z0-9][A-Za-z0-9_.:@-]*$');

create domain job_on_duplicate as text constraint job_on_duplicate_known
    check (value in ('refuse', 'ignore', 'replace', 'postpone', 'replace_and_postpone'));

alter table jobs
    add column on_duplicate   job_on_duplicate,
    add column postpone_until timestamptz,
    -- owned by the engine
    add column aside          boolean not null default false, -- it lets the later rows of its ordering key pass
    add column blocks_until   timestamptz;                    -- since it failed: when it steps aside at the latest

comment on column jobs.on_duplicate is
    'When a row with the same unique_key waits: refuse (null), ignore, replace, postpone, replace_and_postpone.';
comment on column jobs.postpone_until is 'Later inserts push run_at no further than this; an hour after created_at if null.';

-- Rows that stepped aside are no longer in anybody's way, and are not met when the head of a key is looked for.
drop index jobs_ordered;
create index jobs_ordered on jobs (kind, ordering_key, id) where ordering_key is not null and not aside;
-- Rows that wait for their turn, by key: what is opened next.
create index jobs_in_order on jobs (kind, ordering_key, aside, run_at, id) where gate = 'order';
-- Heads that have failed and have a time limit.
create index jobs_blocking on jobs (blocks_until) where blocks_until is not null and not aside;

-- One row a debounced key, and the row of jobs that took its last insert.  Of many clients with one key each waits for the
-- one before it here, as it would at a unique index; an advisory lock for each key would fill the lock table.
create table job_debounces (
    kind       text        not null,
    unique_key text        not null,
    job_id     bigint      not null,
    created_at timestamptz not null default now(),
    primary key (kind, unique_key)
) with (fillfactor = 50);
create index job_debounces_age on job_debounces (created_at);
comment on table job_debounces is 'Which row of jobs took the last insert of a unique_key with on_duplicate.';

-- Postgres reads the text of a trigger's `when` anew at every statement: a third of what an insert cost.  A short function is
-- called in a tenth of that.  So the two that every insert meets are called always; they need no rights and set no
-- search_path, and name everything by its schema, operators too, so that a producer's own cannot lead them astray.
drop trigger jobs_hint on jobs;
drop trigger jobs_engine_columns on jobs;
drop trigger jobs_idempotency on jobs;
drop trigger jobs_idempotency_kept on jobs;
drop function jobs_hint();
drop function jobs_engine_columns();
drop function jobs_idempotency();
grant select on sequence jobs_hint_clock to public;
select setval('jobs_hint_clock', 0); -- a sequence that was never asked has no last value

-- Send a hint, unless this transaction has sent one or another client that saw the same old time is sending it: of those the
-- one sends that moves the turn on from where it saw it.  Anybody may call it, as anybody may call pg_notify.
create function job_hint() returns void language plpgsql security definer set search_path from current as $$
declare
    clock_ms bigint := (date_part('epoch', clock_timestamp()) * 1000)::bigint;
    turn bigint;
begin -- assignments, since each `select` and `perform` would set up an executor
    if current_setting('jobsd.hinted', true) = current_schema() then
        return;
    end if;
    turn := pg_sequence_last_value('jobs_hint_turn');
    if abs(clock_ms - pg_sequence_last_value('jobs_hint_clock')) >= 5 and nextval('jobs_hint_turn') = turn + 1 then
        clock_ms := setval('jobs_hint_clock', clock_ms);
        perform set_config('jobsd.hinted', current_schema(), true);
        perform pg_notify(left('jobsd:' || current_schema(), 63), '');
    end if;
end $$;

-- One at a time takes the keys of a row that asks for it, as the table's owner.  What was asked, in words:
-- An idempotency key that was there already: no row, no error.  A row that its unique key will keep out leaves no
-- idempotency key behind, which would shut out the next try.
-- `on_duplicate`: what happens to the row is decided while no other client decides about the same key, and a row that waits
-- is locked before it is changed; one that a claim has just taken has given its key up, and this one comes after it.
create function jobs_keys() returns trigger language plpgsql security definer set search_path from current as $$
declare
    merges boolean := coalesce(new.on_duplicate <> 'ignore', false);
    replaces boolean := coalesce(new.on_duplicate in ('replace', 'replace_and_postpone'), false);
    postpones boolean := coalesce(new.on_duplicate in ('postpone', 'replace_and_postpone'), false);
    waiting bigint;
begin
    if new.idempotency_key is not null
        and (tg_when = 'AFTER' or new.unique_key is null
             or not exists (select from jobs where kind = new.kind and unique_key = new.unique_key
                            and (not merges or state = 'running'))
             or exists (select from job_keys where kind = new.kind and key = new.idempotency_key))
    then
        insert into job_keys (kind, key, job_id) values (new.kind, new.idempotency_key, new.id) on conflict do nothing;
        if not found then
            return null;
        end if;
    end if;
    if tg_when = 'AFTER' or new.on_duplicate is null then
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

do $do$
begin
execute format($sql$
-- Wake the daemons, at most once in 5 ms over all producers.
create function jobs_hint() returns trigger language plpgsql as $$
begin
    if pg_catalog.abs(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) operator(pg_catalog.*) 1000
           operator(pg_catalog.-) pg_catalog.pg_sequence_last_value(%2$L))
       operator(pg_catalog.>=) 5
    then
        perform %1$I.job_hint();
    end if;
    return null;
end $$;

-- Refuse a row that comes with a history: its attempt at the top of its range, say, could not be claimed, and every claim
-- of its queue would fail at it.  A fence may be given: a row brought back to life must outrank its former life's writers.
-- A row of the future stands at a gate of its own.  A row that asks to be merged may never be inserted, so where a policy
-- decides what this producer may insert, it is asked here, with a row that is undone at once.
create function jobs_engine_columns() returns trigger language plpgsql as $$
begin
    if not (new.run_at operator(pg_catalog.>) pg_catalog.clock_timestamp()
            or new.state operator(pg_catalog.<>) 'ready' or new.attempt operator(pg_catalog.<>) 0
            or new.crashes operator(pg_catalog.<>) 0 or new.fence operator(pg_catalog.<>) 0
            or new.gate operator(pg_catalog.<>) '' or new.aside
            or new.worker_id is not null or new.started_at is not null or new.blocks_until is not null
            or new.on_duplicate is not null)
    then
        return new;
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
    return new;
end $$;
$sql$, current_schema(), quote_ident(current_schema()) || '.jobs_hint_clock');
end $do$;

-- By name the first of them: what it refuses leaves no key behind, and a row that is merged has its gate.
create trigger jobs_engine_columns before insert on jobs for each row execute function jobs_engine_columns();
create trigger jobs_keys before insert on jobs for each row
    when (coalesce(new.idempotency_key, new.on_duplicate) is not null) execute function jobs_keys();
-- The row that was in its way may have ended a moment later: then the key is written after all.
create trigger jobs_keys_kept after insert on jobs for each row
    when (new.idempotency_key is not null) execute function jobs_keys();
create trigger jobs_hint after insert on jobs for each statement execute function jobs_hint();

-- Order: of an ordering key one row runs at a time, the oldest of those that have not stepped aside.  A claim that meets
-- another parks it at the gate 'order'; whoever ends what it waits for opens it.  So that neither misses the other, a claim
-- parks a row only while it holds a lock on the row that is in the way, which says that nobody is ending that one: an end
-- that comes later waits for the claim, and sees what it parked.  A claim itself never waits.

-- Of rows just claimed, and locked by this transaction: which run now, and which are to be parked; those not named are left
-- as they are.  It looks with eyes of its own, since what the claim's statement sees may be older than its locks.
-- indexes jobs_pkey, jobs_ordered, jobs_ordered_running
create function job_order(picked bigint[]) returns table (job_id bigint, runs boolean)
language plpgsql set search_path from current as $$
begin
    return query
    with mine as materialized (
        select id, kind, ordering_key, aside, priority, run_at from jobs where id = any (picked) and state = 'ready'
    ), key as materialized (
        select asked.kind, asked.ordering_key,
               (select id from jobs where kind = asked.kind and ordering_key = asked.ordering_key and state = 'running')
                   as running,
               case when first.kind = asked.kind and first.ordering_key = asked.ordering_key then first.id end as head
        from (select distinct kind, ordering_key from mine) as asked
        left join lateral (
            select id, kind, ordering_key from jobs
            where ordering_key is not null and not aside and (kind, ordering_key, id) >= (asked.kind, asked.ordering_key, 0)
            order by kind, ordering_key, id limit 1
        ) as first on true
    ), judged as (
        select mine.*, key.running,
               case when key.running is not null then key.running
                    when not mine.aside and key.head <> mine.id then key.head end as blocker
        from mine join key using (kind, ordering_key)
    ), turn as materialized (
        select distinct on (kind, ordering_key) id, kind, ordering_key from judged where blocker is null
        order by kind, ordering_key, priority, run_at, id
    ), parked as materialized (
        select judged.id, coalesce(judged.blocker, turn.id) as blocker,
               judged.running is null and turn.id is null as nobody_runs
        from judged left join turn using (kind, ordering_key)
        where turn.id is distinct from judged.id
    ), firm as materialized (
        select id, gate from jobs
        where id = any (array(select blocker from parked)) and (state = 'running' or not aside or id = any (picked))
        order by id for no key update skip locked
    ), healed as (
        update jobs set gate = ''
        where id = any (array(select firm.id from firm join parked on parked.blocker = firm.id
                              where firm.gate = 'order' and nobody_runs))
    )
    select id, true from turn
    union all
    select parked.id, false from parked where blocker in (select id from firm);
end $$;

-- Open what is next in a key: its head, and beside it the one that has stepped aside and been due for longest.  Which may go
-- now, and since when (seconds since 1970): claims ask for nothing so old unless they are told.  None while one runs, since
-- its end will call this.  A row that somebody else has locked (a producer that merges into it, an operator that cancels it)
-- is waited for, a quarter of a second and once in a transaction, if `patient`; the keeper opens what is left shut.  Called
-- by every statement that ends a row of a key, after it has ended all it ends.  No trigger does: it would fetch each row again.
-- indexes jobs_ordered_running, jobs_in_order; jobs_ordered, from the key on: asked for the lowest id of a key, the planner
-- walks the ids of the whole table where most rows are of one key
create function job_next(of_kind text, of_key text, patient boolean default true)
returns table (queue text, priority smallint, run_at float8)
language plpgsql set search_path from current as $$
#variable_conflict use_column
declare
    head record;
    usual_timeout text := current_setting('lock_timeout');
begin
    if exists (select from jobs where kind = of_kind and ordering_key = of_key and state = 'running') then
        return;
    end if;
    loop
        select id, kind, ordering_key, gate, jobs.queue, jobs.priority, date_part('epoch', jobs.run_at) as run_at,
               jobs.run_at > clock_timestamp() as later
        into head from jobs
        where ordering_key is not null and not aside and (kind, ordering_key, id) >= (of_kind, of_key, 0)
        order by kind, ordering_key, id limit 1;
        exit when not found or head.kind <> of_kind or head.ordering_key <> of_key or head.gate not in ('', 'order');
        if head.gate = 'order' then
            perform from jobs where id = head.id for no key update skip locked;
            if not found and exists (select from jobs where id = head.id) then
                if not patient or current_setting('jobsd.impatient', true) = 'on' then
                    return;
                end if;
                begin
                    perform set_config('lock_timeout', '250ms', true);
                    perform from jobs where id = head.id for no key update;
                    perform set_config('lock_timeout', usual_timeout, true);
                exception when lock_not_available then
                    perform set_config('jobsd.impatient', 'on', true);
                    return;
                end;
            end if;
            update jobs set gate = case when head.later then 'later' else '' end
            where id = head.id and gate = 'order' and not aside;
            continue when not found;
        end if;
        if not head.later then
            queue := head.queue;
            priority := head.priority;
            run_at := head.run_at;
            return next;
        end if;
        exit;
    end loop;
    return query
    update jobs set gate = ''
    where id = (select id from jobs where kind = of_kind and ordering_key = of_key and aside and gate = 'order'
                order by run_at, id limit 1 for no key update skip locked)
    returning jobs.queue::text, jobs.priority, date_part('epoch', jobs.run_at);
end $$;
