-- What exports and erasures ask of Postgres's own catalogue, and of jobsd's own tables.

-- name: edges
-- Every foreign key: the table and columns that point, those pointed to, and what a delete does.  Reads the catalogue.
select quote_ident(cn.nspname) || '.' || quote_ident(c.relname) as child,
       (select array_agg(a.attname::text order by k.place) from unnest(f.conkey) with ordinality as k (number, place)
        join pg_attribute as a on a.attrelid = f.conrelid and a.attnum = k.number) as columns,
       quote_ident(pn.nspname) || '.' || quote_ident(p.relname) as parent,
       (select array_agg(a.attname::text order by k.place) from unnest(f.confkey) with ordinality as k (number, place)
        join pg_attribute as a on a.attrelid = f.confrelid and a.attnum = k.number) as parent_columns,
       f.confdeltype::text as action
from pg_constraint as f
join pg_class as c on c.oid = f.conrelid join pg_namespace as cn on cn.oid = c.relnamespace
join pg_class as p on p.oid = f.confrelid join pg_namespace as pn on pn.oid = p.relnamespace
where f.contype = 'f' and f.conparentid = 0
order by child, f.conname limit 20000;

-- name: columns
-- The columns of the tables of schemas $1.  Reads the catalogue.
select quote_ident(n.nspname) || '.' || quote_ident(c.relname) as table, array_agg(a.attname::text order by a.attnum) as columns
from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where n.nspname = any ($1::text[]) and c.relkind in ('r', 'p') and not c.relispartition
group by n.nspname, c.relname order by n.nspname, c.relname limit 20000;

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
