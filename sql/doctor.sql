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
from unnest(array['job_history', 'job_attempts', 'webhook_deliveries', 'email_deliveries', 'domain_checks']) as parent,
     generate_series(now() at time zone 'UTC', now() at time zone 'UTC' + $1::int * interval '1 day', '1 day') as day
group by parent order by parent;

-- name: strays
-- Tables whose default partition has rows: no partition was there when they came, and no retention drops them.
select parent from (values
    ('job_history', exists (select from job_history_default)),
    ('job_attempts', exists (select from job_attempts_default)),
    ('webhook_deliveries', exists (select from webhook_deliveries_default)),
    ('email_deliveries', exists (select from email_deliveries_default)),
    ('domain_checks', exists (select from domain_checks_default))
) as found (parent, has_rows)
where has_rows;

-- name: triggers
-- The triggers of table jobs that fire at an ordinary insert.
select tgname::text from pg_trigger
where tgrelid = to_regclass('jobs') and not tgisinternal and tgenabled in ('O', 'A');

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
