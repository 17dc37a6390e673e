-- What `jobsd sample` asks about schema app, beside making and filling it.

-- name: lock
-- One at a time makes or drops the sample; freed with the session.
select pg_advisory_lock(hashtextextended('jobsd sample', 0));

-- name: mark
-- What schema app says it is: no row where there is no such schema.
select coalesce(obj_description(oid, 'pg_namespace'), '') from pg_namespace where nspname = 'app';

-- name: has_role
select exists (select from pg_roles where rolname = 'jobsd_daemon');

-- name: is_empty
select not exists (select from app.organisations);

-- name: needed
-- The tables that rows of table $1 point to, and what these point to.
with recursive needed as (
    select $1::text::regclass::oid as id
    union
    select c.confrelid from needed n join pg_constraint c on c.conrelid = n.id and c.contype = 'f'
)
select relname::text from pg_class join needed on needed.id = pg_class.oid where relnamespace = 'app'::regnamespace;

-- name: size
select coalesce(sum(pg_total_relation_size(oid)), 0)::bigint from pg_class
where relnamespace = 'app'::regnamespace and relkind = 'r' and relname = any ($1::text[]);

-- name: settle
-- Numbers go on after those that were given, and the planner knows what came.
do $$
declare
    place record;
begin
    for place in select c.oid::regclass::text as name, pg_get_serial_sequence(c.oid::regclass::text, a.attname) as sequence
                 from pg_class c left join pg_attribute a on a.attrelid = c.oid and a.attidentity <> ''
                 where c.relnamespace = 'app'::regnamespace and c.relkind = 'r' order by c.relname loop
        if place.sequence is not null then
            execute format('select setval(%L, max(id)) from %s having max(id) is not null', place.sequence, place.name);
        end if;
        execute 'analyze ' || place.name;
    end loop;
end
$$;
