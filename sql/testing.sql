-- What the test kit does to databases of its own: never to one that holds anybody's work.

-- name: clock
-- A clock that stands still.  Functions of the names that statements ask the time by, in a schema that stands before
-- pg_catalog in the search_path of the whole database: so the production statements, the columns' defaults and the users'
-- own SQL all read it, and none of them is changed.  Null hands: the time of day.
create schema jobsd_clock;
create table jobsd_clock.hands (at timestamptz);
insert into jobsd_clock.hands values (null);
create function jobsd_clock.now() returns timestamptz language sql stable security definer
    as 'select coalesce((select at from jobsd_clock.hands), pg_catalog.now())';
create function jobsd_clock.transaction_timestamp() returns timestamptz language sql stable security definer
    as 'select jobsd_clock.now()';
create function jobsd_clock.statement_timestamp() returns timestamptz language sql stable security definer
    as 'select jobsd_clock.now()';
create function jobsd_clock.clock_timestamp() returns timestamptz language sql stable security definer
    as 'select jobsd_clock.now()';
grant usage on schema jobsd_clock to public;

-- name: rebind
-- What was made before the clock is told to read it: defaults of columns are bound to a function when they are made, and
-- functions that set their own search_path do not see the database's.
do $$
declare
    real constant text := '\mpg_catalog\.(now|transaction_timestamp|statement_timestamp|clock_timestamp)\(\)';
    found record;
begin
    for found in
        select c.oid::regclass as place, a.attname as name,
               regexp_replace(regexp_replace(pg_get_expr(d.adbin, d.adrelid), real, 'jobsd_clock.\1()', 'g'),
                              '\mCURRENT_TIMESTAMP\M', 'jobsd_clock.now()', 'g') as expression
        from pg_attrdef d
        join pg_class c on c.oid = d.adrelid
        join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
        where a.attgenerated = '' and c.relnamespace not in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
          and pg_get_expr(d.adbin, d.adrelid) ~ (real || '|\mCURRENT_TIMESTAMP\M')
    loop
        execute format('alter table %s alter column %I set default %s', found.place, found.name, found.expression);
    end loop;
    for found in
        select p.oid, p.oid::regprocedure as routine, p.prosrc ~ real as names_it,
               (select string_agg(trim(part), ', ')
                from unnest(p.proconfig) as setting, unnest(string_to_array(substr(setting, 13), ',')) as part
                where setting like 'search\_path=%' and trim(part) not in ('pg_catalog', 'pg_temp')) as path
        from pg_proc p
        where p.prokind in ('f', 'p') and p.pronamespace not in ('pg_catalog'::regnamespace,
              'information_schema'::regnamespace, 'jobsd_clock'::regnamespace)
          and not exists (select from pg_depend where objid = p.oid and deptype = 'e')
    loop
        if found.names_it then
            execute regexp_replace(pg_get_functiondef(found.oid), real, 'jobsd_clock.\1()', 'g');
        end if;
        if found.path is not null and found.path not like '%jobsd\_clock%' then
            execute format('alter routine %s set search_path = %s, jobsd_clock, pg_catalog, pg_temp',
                           found.routine, found.path);
        end if;
    end loop;
end $$;

-- name: set_clock
-- $1 the time from now on; null: the time of day, which then stands still
update jobsd_clock.hands set at = coalesce($1::timestamptz, date_trunc('milliseconds', pg_catalog.now())) returning at;

-- name: next_due
-- When something that waits may next run by the clock alone: the first row that is due later, or the first hold to end.
select least(
    (select min(run_at) from jobs where state = 'ready' and run_at > now()),
    (select min(until) from job_holds where until > now() and exists (
        select from jobs where state = 'ready' and run_at <= now())));

-- name: held_by_limit
-- Whether a row that is due stands at a limit's gate.
select exists (select from jobs where state = 'ready' and gate like 'limit:%' and run_at <= now());

-- name: die
-- A worker's lease is over, as if nothing had been heard of it.  $1 worker
update job_workers set lease_until = now() where id = $1;

-- name: live
-- Rows that wait or run, as they were inserted; $1 at most.
select id, kind, args::text as args, queue, org_id, priority,
       case when state = 'ready' and run_at > now() then 'scheduled' else state end as state,
       gate, attempt, crashes, run_at, null::timestamptz as finished_at, last_error ->> 'code' as code,
       last_error ->> 'message' as reason, null as result, (to_jsonb(jobs) - 'args')::text as columns
from jobs order by id limit $1;

-- name: ended
-- Rows that ended, as they ended; the latest $1.
select id, kind, args::text as args, queue, org_id, priority, state, '' as gate, attempt, crashes, run_at, finished_at,
       last_error ->> 'code' as code, reason, result::text as result, (to_jsonb(job_history) - 'args')::text as columns
from (select * from job_history order by finished_at desc, id desc limit $1) as job_history
order by finished_at, id;

-- name: cut_off
-- End every connection to database $1; how many there were.
select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = $1;
