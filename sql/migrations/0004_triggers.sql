-- pre
-- What happens at an insert.  Both functions run as their owner with a fixed search_path, so that a producer needs no
-- right but INSERT on jobs and cannot lead them astray; neither ever waits for another transaction's hint.

-- The time of the last hint, in ms.  A sequence, because its value is shared at once, outside any transaction, without a
-- lock: a row would make producers wait for each other.
create sequence jobs_hint_clock minvalue 0 start 0;

-- Wake the daemons, at most once in 5 ms over all producers: NOTIFY takes a lock on the whole database at commit.  A hint
-- left out is no loss: the daemon looks again shortly after each one, and at every poll.
create function jobs_hint() returns trigger language plpgsql security definer set search_path from current as $$
declare
    clock_ms bigint := (date_part('epoch', clock_timestamp()) * 1000)::bigint;
begin
    if abs(clock_ms - (select last_value from jobs_hint_clock)) >= 5 then
        perform setval('jobs_hint_clock', clock_ms);
        perform pg_notify(left('jobsd:' || tg_table_schema, 63), '');
    end if;
    return null;
end $$;

create trigger jobs_hint after insert on jobs for each statement execute function jobs_hint();

-- A second insert with the same key adds no row and raises nothing.  It waits only for the very transaction that is
-- inserting the same key, as a unique index would.
create function jobs_idempotency() returns trigger language plpgsql security definer set search_path from current as $$
begin
    insert into job_keys (kind, key, job_id) values (new.kind, new.idempotency_key, new.id) on conflict do nothing;
    if not found then
        return null;
    end if;
    return new;
end $$;

create trigger jobs_idempotency before insert on jobs for each row
    when (new.idempotency_key is not null) execute function jobs_idempotency();
