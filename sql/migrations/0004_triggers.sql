-- pre
-- What happens at an insert.  The functions run as their owner with a fixed search_path, so that a producer needs no
-- right but INSERT on jobs and cannot lead them astray; none of them ever waits for another transaction's hint.

-- The time of the last hint, in ms, and whose turn it is to send one.  Sequences, because their values are shared at once,
-- outside any transaction, without a lock: a row would make producers wait for each other, and an advisory lock for each
-- hint would fill the lock table in a long transaction of many inserts.
create sequence jobs_hint_clock minvalue 0 start 0;
create sequence jobs_hint_turn;
select setval('jobs_hint_turn', 1);

-- Wake the daemons, at most once in 5 ms over all producers: NOTIFY takes a lock on the whole database at commit.  A hint
-- left out is no loss: the daemon looks again shortly after each one, and at every poll.  Of many clients that see the same
-- old time at once, the one sends that moves the turn on from where it saw it.  A transaction sends one hint however much it
-- inserts (Postgres delivers equal ones once), and touches the clock once: a long one must not silence the others.
create function jobs_hint() returns trigger language plpgsql security definer set search_path from current as $$
declare
    clock_ms bigint := (date_part('epoch', clock_timestamp()) * 1000)::bigint;
    last_ms bigint;
    turn bigint;
begin
    if current_setting('jobsd.hinted', true) = tg_table_schema then
        return null;
    end if;
    select c.last_value, t.last_value into last_ms, turn from jobs_hint_clock c, jobs_hint_turn t;
    if abs(clock_ms - last_ms) >= 5 and nextval('jobs_hint_turn') = turn + 1 then
        perform setval('jobs_hint_clock', clock_ms);
        perform set_config('jobsd.hinted', tg_table_schema, true);
        perform pg_notify(left('jobsd:' || tg_table_schema, 63), '');
    end if;
    return null;
end $$;

create trigger jobs_hint after insert on jobs for each statement execute function jobs_hint();

-- Refuse a row that comes with a history: its attempt at the top of its range, say, could not be claimed, and every claim
-- of its queue would fail at it.  A fence may be given: a row brought back to life must outrank its former life's writers.
create function jobs_engine_columns() returns trigger language plpgsql set search_path from current as $$
begin
    raise exception 'state, attempt, fence, crashes, gate, worker_id and started_at of jobs are set by the daemon alone'
        using errcode = 'check_violation', schema = tg_table_schema, table = tg_table_name,
              constraint = 'jobs_engine_columns_are_not_given';
end $$;

create trigger jobs_engine_columns before insert on jobs for each row
    when (new.state <> 'ready' or new.attempt <> 0 or new.crashes <> 0 or new.fence not between 0 and 1000000000
          or new.gate <> '' or new.worker_id is not null or new.started_at is not null)
    execute function jobs_engine_columns();

-- A second insert with the same key adds no row and raises nothing.  It waits only for the very transaction that is
-- inserting the same key, as a unique index would.  A row that its unique key will keep out leaves no idempotency key
-- behind, which would shut out the next try.
create function jobs_idempotency() returns trigger language plpgsql security definer set search_path from current as $$
begin
    if tg_when = 'BEFORE' and new.unique_key is not null
        and exists (select from jobs where kind = new.kind and unique_key = new.unique_key)
        and not exists (select from job_keys where kind = new.kind and key = new.idempotency_key)
    then
        return new;
    end if;
    insert into job_keys (kind, key, job_id) values (new.kind, new.idempotency_key, new.id) on conflict do nothing;
    if not found then
        return null;
    end if;
    return new;
end $$;

create trigger jobs_idempotency before insert on jobs for each row
    when (new.idempotency_key is not null) execute function jobs_idempotency();

-- The row that was in its way may have ended a moment later: then the key is written after all.
create trigger jobs_idempotency_kept after insert on jobs for each row
    when (new.idempotency_key is not null and new.unique_key is not null) execute function jobs_idempotency();
