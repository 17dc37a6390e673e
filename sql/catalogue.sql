-- What jobs of the config ask of every table that they are pointed at: whether it is there, and what it is like.  Names go
-- in as parameters; what comes back as `sql` was quoted by Postgres, and is all that ever stands in a statement.

-- name: tables
-- Of each table (schemas $1, null: along the search_path; names $2): its kind, columns, indexes, and what this role may do.
-- Reads the catalogue only.
select found.oid, wanted.name as asked, found.relkind::text as kind, found.sql, found.reltuples::float8 as rows,
       has_schema_privilege(found.relnamespace, 'usage') as usable,
       array_remove(array[
           case when has_table_privilege(found.oid, 'select') then 'select' end,
           case when has_table_privilege(found.oid, 'insert') then 'insert' end,
           case when has_table_privilege(found.oid, 'update') then 'update' end,
           case when has_table_privilege(found.oid, 'delete') then 'delete' end], null) as rights,
       current_user::text as role, row_security_active(found.oid) as filtered,
       (select json_agg(json_build_object(
                   'name', a.attname, 'sql', quote_ident(a.attname), 'type', format_type(a.atttypid, a.atttypmod),
                   'base', format_type(case when y.typtype = 'd' then y.typbasetype else y.oid end, null),
                   'category', y.typcategory, 'not_null', a.attnotnull,
                   'generated', a.attgenerated <> '' or a.attidentity = 'a') order by a.attnum)
        from pg_attribute as a join pg_type as y on y.oid = a.atttypid
        where a.attrelid = found.oid and a.attnum > 0 and not a.attisdropped)::text as columns,
       (select json_agg(json_build_object(
                   'name', i.indexrelid::regclass::text,
                   'columns', (select json_agg(a.attname order by place)
                               from unnest(i.indkey::int2[]) with ordinality as k (number, place)
                               left join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = k.number and k.number > 0
                               where place <= i.indnkeyatts),
                   'unique', i.indisunique and i.indimmediate, 'primary', i.indisprimary, 'where', pg_get_expr(i.indpred, i.indrelid),
                   'ordered', m.amname = 'btree') order by i.indisprimary desc, i.indisunique desc, i.indexrelid)
        from pg_index as i join pg_class as x on x.oid = i.indexrelid join pg_am as m on m.oid = x.relam
        where i.indrelid = found.oid and i.indisvalid)::text as indexes,
       (select json_agg(json_build_object(
                   'table', quote_ident(fn.nspname) || '.' || quote_ident(fc.relname), 'name', f.conname, 'action', f.confdeltype,
                   'column', (select a.attname from pg_attribute as a
                              where a.attrelid = f.conrelid and a.attnum = f.conkey[1])) order by f.conname)
        from pg_constraint as f join pg_class as fc on fc.oid = f.conrelid join pg_namespace as fn on fn.oid = fc.relnamespace
        where f.confrelid = found.oid and f.contype = 'f' and f.conparentid = 0)::text as referenced_by
from unnest($1::text[], $2::text[]) with ordinality as wanted (schema, name, place)
left join lateral (
    select c.oid, c.relkind, c.reltuples, c.relnamespace, quote_ident(n.nspname) || '.' || quote_ident(c.relname) as sql
    from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
    where c.relname = wanted.name and c.relkind in ('r', 'p', 'v', 'm', 'f')
      and n.nspname = any (case when wanted.schema is null then current_schemas(false) else array[wanted.schema::name] end)
    order by array_position(current_schemas(false), n.nspname) limit 1
) as found on true
order by wanted.place;

-- name: near
-- Tables that this role may read, for a name that may be misspelt: not more than 2,000.
select n.nspname || '.' || c.relname
from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') and n.nspname not like 'pg\_%' and n.nspname <> 'information_schema'
limit 2000;

-- name: lock
-- One run of a job at a time, whoever started it; freed when the session ends or goes back to its pool.  The end of a session whose
-- machine has lost its power is seen after a minute, and not after the two hours of most systems.  $1 name of the job
select pg_try_advisory_lock(hashtextextended('jobsd job ' || current_schema() || ' ' || $1::text, 0)),
       set_config('tcp_keepalives_idle', '30', false), set_config('tcp_keepalives_interval', '10', false),
       set_config('tcp_keepalives_count', '3', false);

-- name: now
-- What this run takes for now: pages must not grow while it goes through them.
select now();

-- name: careful
-- For the session of a run: it waits for no lock for longer than $1, and pages ride an index whatever the statistics of a
-- table say that was filled a moment ago.  Plans are made with the values at hand, so that partial indexes can be used; no machine
-- code is made of them, which takes longer than a page does.
select set_config('lock_timeout', $1, false), set_config('enable_seqscan', 'off', false),
       set_config('enable_hashjoin', 'off', false), set_config('enable_mergejoin', 'off', false),
       set_config('plan_cache_mode', 'force_custom_plan', false), set_config('jit', 'off', false);
