-- What `jobsd doctor` asks the server.  Nothing here changes anything or reads more than a row of any large table.

-- name: server
-- How the server and this role are set up.
select current_setting('server_version_num')::int as version, current_setting('server_version') as shown,
       current_setting('synchronous_commit') as synchronous_commit, current_setting('fsync') as fsync,
       pg_is_in_recovery() as standby, date_part('epoch', clock_timestamp()) as clock;

-- name: backend
-- Which backend answers: two answers on one connection are a pooler's work.
select pg_backend_pid();

-- name: partitions
-- Of each partitioned table: how many of the next $1 days' partitions are missing.
select parent, count(*) filter (where to_regclass(quote_ident(parent || '_' || to_char(day, 'YYYYMMDD'))) is null)::int as missing
from unnest(array['job_history', 'job_attempts', 'webhook_deliveries', 'email_deliveries', 'domain_checks', 'job_logs',
                  'webhook_events', 'notification_deliveries', 'monitor_checks']) as parent,
     generate_series(now() at time zone 'UTC', now() at time zone 'UTC' + $1::int * interval '1 day', '1 day') as day
group by parent order by parent;

-- name: strays
-- Tables whose default partition has rows: no partition was there when they came.
select parent from job_strays(1);

-- name: triggers
-- The triggers that fire at an ordinary write, of the tables $1.
select tgname::text from pg_trigger
where tgrelid in (select to_regclass(name) from unnest($1::text[]) as name) and not tgisinternal and tgenabled in ('O', 'A');

-- name: profiles
-- Retry profiles that endpoints ask for and that are none of $1, with one of those endpoints each and how many they are.
-- Reads all endpoints: they are few beside what they get.  At most 20.
select profile, min(id) as endpoint, count(*)::int as endpoints from webhook_endpoints
where profile <> all ($1::text[])
group by profile order by profile limit 20;

-- name: horizon
-- Who has kept vacuum from removing dead rows for more than $1 seconds, the oldest first: sessions in an old snapshot, and
-- transactions that were prepared and then forgotten.
select 'process ' || pid as holder, coalesce(nullif(application_name, ''), backend_type) as name, state,
       date_part('epoch', now() - xact_start) as age_s
from pg_stat_activity
where backend_xmin is not null and xact_start < now() - $1::float8 * interval '1 second' and pid <> pg_backend_pid()
union all
select 'prepared transaction ' || gid, owner::text, 'prepared', date_part('epoch', now() - prepared)
from pg_prepared_xacts
where prepared < now() - $1::float8 * interval '1 second'
order by age_s desc limit 3;

-- name: settings
-- The settings $1 as they hold for this role in this database.
select name, setting from pg_settings where name = any ($1::text[]);

-- name: room
-- How many may connect, and how many do.
select current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
           - coalesce(current_setting('reserved_connections', true)::int, 0) as most,
       (select count(*)::int from pg_stat_activity where backend_type = 'client backend') as taken;

-- name: invalid_indexes
-- Indexes of tables $1 and their partitions that no query may use: a build of theirs was broken off.  At most 20.
select i.indexrelid::regclass::text as index, i.indrelid::regclass::text as place
from pg_index i join pg_class c on c.oid = i.indrelid
where c.relnamespace = quote_ident(current_schema())::regnamespace and not (i.indisvalid and i.indisready)
  and (c.relname = any ($1::text[])
       or i.indrelid in (select h.inhrelid from pg_inherits h join pg_class p on p.oid = h.inhparent
                         where p.relname = any ($1::text[])))
order by 1 limit 20;

-- name: slots
-- Replication slots that keep rows or write-ahead log for somebody: `behind` transactions, `kept` bytes.  At most 20.
select slot_name::text as slot, active, greatest(age(xmin), age(catalog_xmin)) as behind,
       case when pg_is_in_recovery() then 0
            else pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) end::bigint as kept
from pg_replication_slots
order by 1 limit 20;

-- name: me
-- Whether this role is bound by rights and policies at all, and sees what other sessions do.
select current_user::text as role, rolsuper as super, rolbypassrls as bypasses,
       pg_has_role(current_user, 'pg_read_all_stats', 'usage') as sees
from pg_roles where rolname = current_user;
