-- pre
-- Daily partitions, made ahead and dropped when they are old.  A partition is built beside its parent and attached, which
-- takes a weaker lock than `create table … partition of`; each call gives up after 200 ms of waiting and is made again.

-- Make the partitions of today and the next `ahead` days; returns the names of the new ones.  Days are days in UTC,
-- whatever the session's time zone.  Rows that came while no daemon had made their day stand in the default partition, and
-- no partition can be attached beside them: they move into it first.  Another session at the same work: nothing is done.
create function job_partitions_make(parent text, ahead int) returns setof text
language plpgsql set search_path from current set lock_timeout = '200ms' set timezone = 'UTC' as $$
declare
    strays text := parent || '_default';
    place regclass := to_regclass(quote_ident(parent));
    day_of text := (select attname from pg_partitioned_table join pg_attribute on attrelid = partrelid and attnum = partattrs[0]
                    where partrelid = place);
    child text;
begin
    if not pg_try_advisory_xact_lock(hashtext('jobsd partitions'), place::oid::int) then
        return;
    end if;
    for n in 0 .. ahead loop
        child := parent || to_char(current_date + n, '_YYYYMMDD');
        continue when to_regclass(quote_ident(child)) is not null;
        execute format('create table %I (like %I including all)', child, parent);
        execute format('lock table %I in access exclusive mode', strays); -- as attaching will: no stray comes after the move
        execute format('with gone as (delete from %1$I where %3$I >= %4$L and %3$I < %5$L returning *)
                        insert into %2$I select * from gone', strays, child, day_of, current_date + n, current_date + n + 1);
        execute format('alter table %I attach partition %I for values from (%L) to (%L)', parent, child, current_date + n,
                       current_date + n + 1);
        return next child;
    end loop;
end $$;

-- Drop at most `most` partitions that hold nothing younger than `keep`; returns their names.
create function job_partitions_drop(parent text, keep interval, most int) returns setof text
language plpgsql set search_path from current set lock_timeout = '200ms' set timezone = 'UTC' as $$
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
        return next child;
    end loop;
end $$;
