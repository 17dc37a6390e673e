-- pre
-- Whose rows a login may see.  The rights themselves, row-level security among them, are no step of a migration: they follow
-- sql/manifest.toml, which every `jobsd migrate` puts into effect, so that a table cannot come without them.

-- A login that stands here sees and inserts rows of its organisations only; one that does not, and is in no group that does,
-- works for all of them (the application's own back end).  Roles by oid, so that renaming one does not set it free.
create table job_org_members (
    role   regrole not null,
    org_id text    not null check (org_id ~ '^[^\x01-\x1f\x7f]{1,128}$'),
    primary key (role, org_id)
);
comment on table job_org_members is 'Logins of organisations: a role here sees and inserts the rows of its organisations only.';

-- The organisations of whoever asks; null: all.  It goes by the session's login, which nothing but a new connection changes, and
-- all groups it is in, since `set role` leads to any of them; and by the role that was set, which may be narrower still.  A
-- setting of the session would be no boundary: whoever can send SQL can send `set`.  Everybody may read it: it speaks of the
-- reader alone.
create view job_own_orgs with (security_barrier) as
with recursive login (id) as (
    select quote_ident(session_user)::regrole::oid
    union
    select m.roleid from login join pg_auth_members m on m.member = login.id
), acting (id) as (
    select quote_ident(current_user)::regrole::oid
    union
    select m.roleid from acting join pg_auth_members m on m.member = acting.id
), reach (wide, narrow) as (
    select (select array_agg(org_id) from job_org_members where role::oid = any (array(select id from login))),
           case when current_user <> session_user then
               (select array_agg(org_id) from job_org_members where role::oid = any (array(select id from acting))) end
)
select case when wide is null then narrow
            when narrow is null then wide
            else array(select unnest(wide) intersect select unnest(narrow)) end as orgs
from reach;

-- The same for policies.  It is called immutable though a row of job_org_members changes it: so the planner calls it once for a
-- plan and not the executor for each insert, of which it would be a fifth; and where it is null the policy is gone from the plan.
-- A plan under row-level security is made anew when the role changes, and job_org_members_changed makes all anew.
create function job_orgs() returns text[] language plpgsql immutable parallel safe set search_path from current as $$
begin
    return (select orgs from job_own_orgs);
end $$;

-- Plans that rest on the old members are thrown away: a grant, even one of what is there, marks a table as changed, without
-- a lock that a claim would wait for.  One at a time, since two would be "concurrently updated".
create function job_org_members_changed() returns trigger language plpgsql security definer set search_path from current as $$
declare
    place text;
begin
    perform pg_advisory_xact_lock(hashtextextended('jobsd members ' || tg_table_schema, 0));
    for place in
        select c.oid::regclass::text from pg_policy p join pg_class c on c.oid = p.polrelid
        where p.polname = 'jobsd_organisations' and c.relnamespace = (select relnamespace from pg_class where oid = tg_relid)
    loop
        execute format('grant select on %s to current_user', place);
    end loop;
    return null;
end $$;

-- A role that loses its last organisation would belong to all.  Looked at when the transaction commits, so that a role can be
-- moved from one organisation to another in either order.
create function job_org_members_kept() returns trigger language plpgsql security definer set search_path from current as $$
begin
    if exists (select from pg_roles where oid = old.role::oid)
        and not exists (select from job_org_members where role = old.role)
        and (has_any_column_privilege(old.role::oid, 'jobs', 'select, insert, update')
             or has_table_privilege(old.role::oid, 'job_status', 'select'))
    then
        raise exception '% would belong to every organisation, since it is left with none', old.role
            using errcode = 'check_violation', schema = tg_table_schema, table = tg_table_name,
                  constraint = 'job_org_members_leave_no_role_open',
                  hint = 'Drop the role, or take its rights on jobs and job_status away first.';
    end if;
    return null;
end $$;

create function job_org_members_stay() returns trigger language plpgsql set search_path from current as $$
begin
    raise exception 'truncating job_org_members would let every login see every organisation; delete rows instead'
        using errcode = 'check_violation';
end $$;

create trigger job_org_members_changed after insert or update or delete on job_org_members
    for each statement execute function job_org_members_changed();
create constraint trigger job_org_members_kept after update or delete on job_org_members
    deferrable initially deferred for each row execute function job_org_members_kept();
create trigger job_org_members_stay before truncate on job_org_members
    for each statement execute function job_org_members_stay();

-- The view over live and finished rows runs with its owner's rights, whom no policy binds, so it asks for itself; at each
-- execution, since a plan without row-level security of its own outlives a `set role`.
do $$
begin
    execute format(
        'create or replace view job_status with (security_barrier) as select * from (%s) as everyone
         where (coalesce(org_id, '''') = any ((select orgs from job_own_orgs)::text[])) is not false',
        rtrim(pg_get_viewdef('job_status'::regclass), '; '));
end $$;
comment on view job_status is 'Live and finished jobs; a login of an organisation sees its own.';

-- And so does the view of paused queues, which belong to no one organisation.
do $$
begin
    execute format(
        'create or replace view job_queues with (security_barrier) as select * from (%s) as everyone
         where (select orgs from job_own_orgs) is null',
        rtrim(pg_get_viewdef('job_queues'::regclass), '; '));
end $$;

-- `copy job_intake (kind, args) from stdin`: Postgres refuses COPY into a table under row-level security.  Columns left out take
-- the table's defaults.  Both are written down here from what table jobs has, so that they say the same.
do $do$
declare
    names text;
    givens text;
begin
    select string_agg(quote_ident(a.attname), ', ' order by a.attnum),
           string_agg(case when a.attnotnull and d.adbin is not null
                           then format('coalesce(new.%I, %s)', a.attname, pg_get_expr(d.adbin, d.adrelid))
                           else format('new.%I', a.attname) end, ', ' order by a.attnum)
    into names, givens
    from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where a.attrelid = 'jobs'::regclass and not a.attisdropped and a.attname in (
        'kind', 'args', 'queue', 'org_id', 'priority', 'run_at', 'expires_at', 'max_attempts', 'unique_key', 'idempotency_key',
        'ordering_key', 'lane', 'correlation_id', 'traceparent', 'actor_id', 'project_id', 'created_at', 'on_duplicate',
        'postpone_until');
    execute format('create view job_intake as select %s from jobs where false', names);
    execute format('create function job_intake_insert() returns trigger language plpgsql set search_path from current as $$
begin
    insert into jobs (%s) values (%s);
    return new;
end $$', names, givens);
end $do$;
comment on view job_intake is 'For COPY: what is copied into it is inserted into jobs, with the rights of whoever copies.';
create trigger job_intake_insert instead of insert on job_intake for each row execute function job_intake_insert();

-- The partitioned tables whose default partition has rows, and how many, counted up to `most`.  With its owner's rights, since
-- nobody else has any on partitions.
create function job_strays(most int) returns table (parent text, strays bigint)
language plpgsql security definer set search_path from current as $$
declare
    place regclass;
begin
    for parent, place in
        select c.relname, p.partdefid::regclass from pg_partitioned_table p join pg_class c on c.oid = p.partrelid
        where p.partdefid <> 0 and c.relnamespace = (select relnamespace from pg_class where oid = 'jobs'::regclass)
          and pg_has_role(c.relowner, 'usage')
        order by c.relname
    loop
        execute format('select count(*) from (select from %s limit $1) as bounded', place) into strays using most;
        if strays > 0 then
            return next;
        end if;
    end loop;
end $$;
