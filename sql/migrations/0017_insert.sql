-- pre
-- Two triggers that every insert met are one, and ask their questions in fewer words.

-- A trigger is some 3 µs of an insert of 110; each operator in it half of one more, since PL/pgSQL prepares its expressions anew in
-- each transaction.  So what no plain row has is looked for in one comparison of all those columns, and the hint's turn (the
-- most of what is left) is asked beside it.  It still needs no rights, sets no search_path, and names everything by schema.
drop trigger jobs_hint on jobs;
drop trigger jobs_engine_columns on jobs;
drop function jobs_hint();
drop function jobs_engine_columns();

do $do$
begin
execute format($sql$
-- What every row meets.
-- Wake the daemons, at most once in 5 ms over all producers, and once in a transaction, at its first row.
-- Refuse a row that comes with a history: its attempt at the top of its range, say, could not be claimed, and every claim
-- of its queue would fail at it.  A fence may be given: a row brought back to life must outrank its former life's writers.
-- A row of the future stands at a gate of its own.  A row that asks to be merged may never be inserted, so where a policy
-- decides what this producer may insert, it is asked here, with a row that is undone at once.
create function jobs_insert() returns trigger language plpgsql as $$
begin
    if pg_catalog.abs(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) operator(pg_catalog.*) 1000
           operator(pg_catalog.-) pg_catalog.pg_sequence_last_value(%2$L))
       operator(pg_catalog.>=) 5
    then
        if (pg_catalog.current_setting('jobsd.hinted', true) operator(pg_catalog.=) %3$L) is not true then
            perform %1$I.job_hint();
        end if;
    end if;
    if pg_catalog.concat_ws('|', new.state, new.gate, new.attempt, new.crashes, new.fence, new.aside)
       operator(pg_catalog.=) 'ready||0|0|0|f'
       and pg_catalog.num_nonnulls(new.worker_id, new.started_at, new.blocks_until, new.on_duplicate) operator(pg_catalog.=) 0
       and new.run_at operator(pg_catalog.<=) pg_catalog.clock_timestamp()
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
$sql$, current_schema(), quote_ident(current_schema()) || '.jobs_hint_clock', current_schema());
end $do$;

-- By name before those of keys: what it refuses leaves no key behind, and a row that is merged has its gate.
create trigger jobs_insert before insert on jobs for each row execute function jobs_insert();
