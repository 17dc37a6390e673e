-- What the catalogue says of the rights on jobsd's objects in the first schema of the search_path.  Read only; every statement
-- goes by names from sql/manifest.toml, so a schema shared with an application's own tables costs nothing more.

-- name: roles
-- Which of the roles $1 there are.  index pg_authid_rolname_index
select rolname::text as role from pg_roles where rolname = any ($1::text[]);

-- name: me
-- Who asks.  A member of the owner may change what it owns.
select current_user::text as role, current_schema()::text as schema, rolsuper as super, rolcreaterole as creates_roles,
       rolbypassrls as bypasses
from pg_roles where rolname = current_user;

-- name: relations
-- The relations $1 and the partitions of those that have any: their kind, owner, and whether row-level security is on.
with named as (
    select c.oid, c.relname::text as name, c.relkind::text as kind, c.relowner, c.relrowsecurity, null::text as parent
    from pg_class c
    where c.relnamespace = quote_ident(current_schema())::regnamespace and c.relname = any ($1::text[])
), parts as (
    select c.oid, c.relname::text, c.relkind::text, c.relowner, c.relrowsecurity, named.name
    from named join pg_inherits i on i.inhparent = named.oid join pg_class c on c.oid = i.inhrelid
    where c.relkind in ('r', 'p')
)
select name, kind, pg_get_userbyid(relowner)::text as owner, relrowsecurity as guarded, parent,
       (select coalesce(array_agg(attname::text), '{}') from pg_attribute
        where attrelid = found.oid and attnum > 0 and not attisdropped) as columns
from (select * from named union all select * from parts) as found
order by parent nulls first, name;

-- name: rights
-- Every right that somebody else than the owner has on the relations $1 and their partitions, or on columns of them.
with found as (
    select c.oid, c.relname::text as name, c.relkind, c.relowner, c.relacl
    from pg_class c
    where c.relnamespace = quote_ident(current_schema())::regnamespace
      and (c.relname = any ($1::text[])
           or c.oid in (select i.inhrelid from pg_inherits i join pg_class p on p.oid = i.inhparent
                        where p.relnamespace = quote_ident(current_schema())::regnamespace and p.relname = any ($1::text[])))
)
select case given.grantee when 0 then 'public' else pg_get_userbyid(given.grantee)::text end as role, name as object,
       lower(given.privilege_type) as privilege, given.col as column
from (
    select name, relowner, '' as col, acl.grantee, acl.privilege_type from found, aclexplode(found.relacl) as acl
    union all
    select name, relowner, a.attname::text, acl.grantee, acl.privilege_type
    from found join pg_attribute a on a.attrelid = found.oid and a.attnum > 0 and not a.attisdropped,
        aclexplode(a.attacl) as acl
) as given
where given.grantee <> given.relowner;

-- name: functions
-- The functions named $1: owner, whose rights they run with, whether their search_path is pinned, and who may call them.
select p.oid::regprocedure::text as place, p.proname::text as name, pg_get_userbyid(p.proowner)::text as owner,
       p.prosecdef as definer,
       coalesce(exists (select from unnest(p.proconfig) as setting where setting like 'search\_path=%pg\_temp'), false) as pinned,
       array(select case acl.grantee when 0 then 'public' else pg_get_userbyid(acl.grantee)::text end
             from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as acl where acl.grantee <> p.proowner) as callers
from pg_proc p
where p.pronamespace = quote_ident(current_schema())::regnamespace and p.proname = any ($1::text[])
order by p.proname;

-- name: policies
-- Every policy on the tables $1.
select c.relname::text as name, p.polname::text as policy, pg_get_expr(p.polqual, c.oid) as using,
       pg_get_expr(p.polwithcheck, c.oid) as check, p.polcmd::text as command
from pg_policy p join pg_class c on c.oid = p.polrelid
where c.relnamespace = quote_ident(current_schema())::regnamespace and c.relname = any ($1::text[])
order by c.relname, p.polname;

-- name: domains
-- The owners of the domains $1.
select typname::text as name, pg_get_userbyid(typowner)::text as owner
from pg_type
where typnamespace = quote_ident(current_schema())::regnamespace and typtype = 'd' and typname = any ($1::text[]);

-- name: schema
-- What the roles $1, and everybody, may do in the schema, whoever gave it to them.
select 'public' as role, has_schema_privilege('public', quote_ident(current_schema())::regnamespace, 'usage') as enters,
       has_schema_privilege('public', quote_ident(current_schema())::regnamespace, 'create') as creates
union all
select rolname::text, has_schema_privilege(oid, quote_ident(current_schema())::regnamespace, 'usage'),
       has_schema_privilege(oid, quote_ident(current_schema())::regnamespace, 'create')
from pg_roles where rolname = any ($1::text[]);

