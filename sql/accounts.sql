-- What exports and erasures ask of Postgres's own catalogue, and of jobsd's own tables.

-- name: edges
-- Every foreign key: the table and columns that point, those pointed to, what a delete does, which columns it sets where not
-- all (from Postgres 15 on), and whether all can be null.  Reads the catalogue.
select quote_ident(cn.nspname) || '.' || quote_ident(c.relname) as child,
       (select array_agg(a.attname::text order by k.place) from unnest(f.conkey) with ordinality as k (number, place)
        join pg_attribute as a on a.attrelid = f.conrelid and a.attnum = k.number) as columns,
       quote_ident(pn.nspname) || '.' || quote_ident(p.relname) as parent,
       (select array_agg(a.attname::text order by k.place) from unnest(f.confkey) with ordinality as k (number, place)
        join pg_attribute as a on a.attrelid = f.confrelid and a.attnum = k.number) as parent_columns,
       f.confdeltype::text as action,
       case when f.confdeltype in ('n', 'd') then
           (select array_agg(a.attname::text) from pg_attribute as a
            where a.attrelid = f.conrelid and to_jsonb(f) -> 'confdelsetcols' @> to_jsonb(a.attnum)) end as emptied,
       (select bool_and(not a.attnotnull) from pg_attribute as a
        where a.attrelid = f.conrelid and a.attnum = any (f.conkey)) as loose
from pg_constraint as f
join pg_class as c on c.oid = f.conrelid join pg_namespace as cn on cn.oid = c.relnamespace
join pg_class as p on p.oid = f.confrelid join pg_namespace as pn on pn.oid = p.relnamespace
where f.contype = 'f' and f.conparentid = 0
order by child, f.conname limit 20000;

-- name: columns
-- The columns of everything that keeps rows, in any schema, but for our own tables $1 and those of extensions.  Reads the
-- catalogue.
select quote_ident(n.nspname) || '.' || quote_ident(c.relname) as table, c.relkind::text as kind,
       (select array_agg(a.attname::text order by a.attnum) from pg_attribute as a
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns
from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'm', 'f') and not c.relispartition
  and n.nspname not like 'pg\_%' and n.nspname <> 'information_schema'
  and not (n.nspname = current_schema() and c.relname = any ($1::text[]))
  and not exists (select from pg_depend as d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
order by n.nspname, c.relname limit 20000;

-- name: hidden
-- Those of tables $1 of which row security hides something from this role: no policy shows it all rows, or one takes some away.
-- Reads the catalogue.
select t.name as table
from unnest($1::text[]) as t (name), lateral (select t.name::regclass::oid as oid) as c,
     lateral (
         select bool_or(p.polpermissive and p.polcmd in ('*', 'r') and pg_get_expr(p.polqual, p.polrelid) = 'true') as shown,
                bool_or(not p.polpermissive and p.polcmd in ('*', 'r')) as narrowed
         from pg_policy as p
         where p.polrelid = c.oid
           and (0 = any (p.polroles) or exists (select from unnest(p.polroles) as r (oid) where pg_has_role(r.oid, 'usage')))
     ) as by
where row_security_active(c.oid) and (by.shown is not true or by.narrowed)
order by t.name limit 20000;

-- name: told
-- The mail that says an export is ready: args $1, of organisation $2; a second one with the key $3 adds no row.
insert into jobs (kind, args, org_id, priority, idempotency_key) values ('email', $1::jsonb, $2, 1, $3);

-- name: planned_once
-- For the session of an erasure: the checks of foreign keys are statements too, one for each deleted row, and planning them anew
-- costs several times what they do.  Tables are reached by their indexes, as for every job of the catalogue.
select set_config('plan_cache_mode', 'auto', false);

-- name: snapshot
-- This transaction waits for the storage between two statements, and may.
select set_config('idle_in_transaction_session_timeout', '0', true);
