-- pre
-- History for as long as each queue wants it, partitions that cannot be starved, and counts that cost the same for any table.

-- A partition is written once and dropped whole: freeze its rows at the first vacuum (autovacuum does one by inserts), or
-- each partition is read again for every 200 million transactions that pass before it is dropped.
create function job_partitions_settings() returns text language sql immutable as
    $$ select 'autovacuum_freeze_min_age = 0, toast.autovacuum_freeze_min_age = 0' $$;

do $$
declare
    child regclass;
begin
    for child in
        select i.inhrelid::regclass from pg_inherits i
        where i.inhparent in ('job_history'::regclass, 'job_attempts'::regclass, 'webhook_deliveries'::regclass,
                              'email_deliveries'::regclass, 'domain_checks'::regclass)
    loop
        execute format('alter table %s set (%s)', child, job_partitions_settings());
    end loop;
end $$;

-- As before, and:
-- A row in the default partition, of whatever day, moves into a partition of that day, so that the default one is empty
-- after each call and such rows are pruned with the others.
-- Attaching locks the default partition against everybody, which a backup or a report delays.  The fewer days are ready,
-- the longer a call stands in the queue for that lock: somebody who reads the history again and again can put it off, but
-- not until the days have run out.  Results do not wait meanwhile: they lock a partition of their own day only, unless
-- today's is the one that is missing.
create or replace function job_partitions_make(parent text, ahead int) returns setof text
language plpgsql set search_path from current set lock_timeout = '200ms' set timezone = 'UTC' as $$
declare
    strays text := parent || '_default';
    place regclass := to_regclass(quote_ident(parent));
    day_of text := (select attname from pg_partitioned_table join pg_attribute on attrelid = partrelid and attnum = partattrs[0]
                    where partrelid = place);
    ready int := 0;
    day date;
    child text;
begin
    if not pg_try_advisory_xact_lock(hashtext('jobsd partitions'), place::oid::int) then
        return;
    end if;
    while to_regclass(quote_ident(parent || to_char(current_date + ready, '_YYYYMMDD'))) is not null loop
        ready := ready + 1;
    end loop;
    perform set_config('lock_timeout', case ready when 0 then '1s' when 1 then '5s' when 2 then '1s' else '200ms' end, true);
    for n in 0 .. ahead + 60 loop
        if n <= ahead then
            day := current_date + n;
        else
            execute format('select min(%I)::date from %I', day_of, strays) into day;
        end if;
        child := parent || to_char(day, '_YYYYMMDD');
        exit when n > ahead and (day is null or to_regclass(quote_ident(child)) is not null);
        continue when to_regclass(quote_ident(child)) is not null;
        execute format('create table %I (like %I including all) with (%s)', child, parent, job_partitions_settings());
        execute format('lock table %I in access exclusive mode', strays); -- as attaching will: no stray comes after the move
        execute format('with gone as (delete from %1$I where %3$I >= %4$L and %3$I < %5$L returning *)
                        insert into %2$I select * from gone', strays, child, day_of, day, day + 1);
        execute format('alter table %I attach partition %I for values from (%L) to (%L)', parent, child, day, day + 1);
        return next child;
    end loop;
end $$;

-- What a sweep of one partition for one set of rules has come to.  A partition with nothing to delete has `next_at` in the
-- future, or at infinity, and is not read again before.  Rules are named by their digest: daemons with different settings
-- do not undo each other's bookkeeping.
create table job_sweeps (
    partition text        not null,
    rules     text        not null,
    page      bigint      not null default 0, -- everything before it is swept, in the sweep under way
    next_at   timestamptz not null,           -- no row is due before
    due_at    timestamptz not null default 'infinity', -- of the rows that the sweep under way left, the first is due then
    primary key (partition, rules)
) with (fillfactor = 50);

-- Drop at most `most` partitions that hold nothing younger than `keep`; returns their names.  Dropping locks the parent
-- against everybody, results too: hence the short wait.  (`detach … concurrently` is refused beside a default partition.)
create or replace function job_partitions_drop(parent text, keep interval, most int) returns setof text
language plpgsql set search_path from current set lock_timeout = '50ms' set timezone = 'UTC' as $$
declare
    child text;
begin
    for child in
        select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = to_regclass(quote_ident(parent)) and c.relname ~ ('^' || parent || '_\d{8}$')
          and to_date(right(c.relname, 8), 'YYYYMMDD') + 1 <= (now() - keep)::date
        order by c.relname limit most
    loop
        execute format('drop table %I', child);
        delete from job_sweeps where partition = child;
        return next child;
    end loop;
end $$;

-- What stands on `pages` pages of a partition from page `from_page` on: rows by queue and outcome, and the oldest of each.
-- A range of pages, since that needs no index and costs the same wherever it lies.
-- `outcome` and `ended` name the columns ('' is no column: one outcome for all).
create function job_partition_survey(child text, outcome text, ended text, from_page bigint, pages int)
returns table (queue text, outcome_is text, oldest timestamptz) language plpgsql set search_path from current as $$
begin
    return query execute format(
        'select queue::text, %s, min(%I) from %I where ctid >= %L and ctid < %L group by 1, 2',
        case outcome when '' then $q$''::text$q$ else quote_ident(outcome) || '::text' end, ended, child,
        format('(%s,0)', from_page)::tid, format('(%s,0)', from_page + pages)::tid);
end $$;

-- Delete from the same pages, of each (queue, outcome), the rows that ended before a time; at most `most`, and none that
-- somebody else has locked.  Returns how many.
create function job_partition_sweep(child text, outcome text, ended text, from_page bigint, pages int, queues text[],
                                    outcomes text[], befores timestamptz[], most int)
returns int language plpgsql set search_path from current as $$
declare
    gone int;
begin
    execute format(
        'delete from %1$I where ctid = any (array(
             select kept.ctid from %1$I as kept
             where kept.ctid >= %2$L and kept.ctid < %3$L
               and exists (select from unnest($1, $2, $3) as rule (queue, outcome, before)
                           where rule.queue = kept.queue and rule.outcome = %4$s and kept.%5$I < rule.before)
             limit $4 for update of kept skip locked))',
        child, format('(%s,0)', from_page)::tid, format('(%s,0)', from_page + pages)::tid,
        case outcome when '' then $q$''$q$ else 'kept.' || quote_ident(outcome) end, ended)
    using queues, outcomes, befores, most;
    get diagnostics gone = row_count;
    return gone;
end $$;

-- How many jobs ended, by hour: what pages and metrics read instead of counting history.  Each daemon writes rows of its own
-- only, so nobody waits for anybody, and writes totals, so that writing twice does no harm.  Those of days past are folded
-- into worker 0.
create table job_tallies (
    hour      timestamptz not null,
    queue     text        not null,
    outcome   text        not null,
    worker_id bigint      not null,
    n         bigint      not null check (n >= 0),
    primary key (hour, queue, outcome, worker_id)
) with (fillfactor = 70);

-- What each daemon runs now, by queue; written with its heartbeat.
alter table job_workers add column running jsonb not null default '{}';

comment on table job_sweeps is 'How far each partition is swept of rows that their queue keeps for less than retention.history.';
comment on table job_tallies is 'Jobs that ended, by hour, queue and outcome; counted by the daemons.';
comment on column job_workers.running is 'Attempts it ran at its last heartbeat, {queue: how many}.';
