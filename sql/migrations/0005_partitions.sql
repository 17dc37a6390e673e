-- pre
-- Daily partitions, made ahead and dropped when they are old.  A partition is built beside its parent and attached, which
-- takes a weaker lock than `create table … partition of`; each call gives up after 200 ms of waiting and is made again.

-- Make the partitions of today and the next `ahead` days; returns the names of the new ones.
create function job_partitions_make(parent text, ahead int) returns setof text
language plpgsql set search_path from current set lock_timeout = '200ms' as $$
declare
    day timestamptz;
    child text;
begin
    for day in select generate_series(date_trunc('day', now(), 'UTC'), date_trunc('day', now(), 'UTC') + ahead * interval '1 day', '1 day')
    loop
        child := parent || '_' || to_char(day at time zone 'UTC', 'YYYYMMDD');
        continue when to_regclass(quote_ident(child)) is not null;
        execute format('create table %I (like %I including all)', child, parent);
        execute format('alter table %I attach partition %I for values from (%L) to (%L)', parent, child, day, day + interval '1 day');
        return next child;
    end loop;
end $$;

-- Drop at most `most` partitions that hold nothing younger than `keep`; returns their names.
create function job_partitions_drop(parent text, keep interval, most int) returns setof text
language plpgsql set search_path from current set lock_timeout = '200ms' as $$
declare
    child text;
begin
    for child in
        select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = to_regclass(quote_ident(parent)) and c.relname ~ ('^' || parent || '_\d{8}$')
          and to_date(right(c.relname, 8), 'YYYYMMDD') + 1 <= ((now() - keep) at time zone 'UTC')::date
        order by c.relname limit most
    loop
        execute format('drop table %I', child);
        return next child;
    end loop;
end $$;
