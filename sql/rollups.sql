-- How far roll-ups have come: a row for each job of the config with that verb.

-- name: reached
-- How far job $1 has come, and what it added up (a digest).  index job_rollups_pkey
select upto, said from job_rollups where name = $1;

-- name: horizon
-- The oldest moment that a row may still come with whose default is now(): that of the oldest transaction that goes on, of
-- those that this role is shown (its own; a member of pg_read_all_stats, all).  Reads no table.
select least(now(), (select min(xact_start) from pg_stat_activity where datname = current_database()),
             (select min(prepared) from pg_prepared_xacts where database = current_database()));

-- name: reach
-- Everything that came before $3 is in.  $1 job, $2 digest.  The caller holds the job's lock.
insert into job_rollups as r (name, said, upto) values ($1, $2, $3)
on conflict (name) do update set said = excluded.said, upto = excluded.upto
where (r.said, r.upto) is distinct from (excluded.said, excluded.upto);
