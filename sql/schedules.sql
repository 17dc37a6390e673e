-- Ticks of schedules: whoever moves last_tick_at forward inserts the row, in the same statement, so that there is exactly
-- one however many daemons try.  Losers wait for the winner's commit and do nothing.

-- name: known
-- What stands in the table of these schedules ($1), as far as they have begun to count.  index job_schedules_pkey
select name, kind, cron, timezone, last_tick_at, paused_at is not null as paused
from job_schedules
where name = any ($1::text[]) and last_tick_at is not null;

-- name: adopt
-- Make a schedule of the config known.  A new one, or one with another calendar, counts from now on: what it would have
-- done in the past is nobody's wish.  $1 name, $2 kind, $3 cron, $4 timezone.  index job_schedules_pkey
insert into job_schedules as known (name, kind, cron, timezone, last_tick_at)
values ($1, $2, $3, $4, now())
on conflict (name) do update
set kind = excluded.kind, cron = excluded.cron, timezone = excluded.timezone, updated_at = now(),
    last_tick_at = case when known.cron = excluded.cron and known.timezone = excluded.timezone
                        then coalesce(known.last_tick_at, now()) else now() end
returning last_tick_at, paused_at is not null as paused;

-- name: tick
-- Insert the row of one tick.  $1 schedule, $2 tick, $3 kind, $4 args, $5 queue, $6 org_id, $7 priority, $8 unique_key (null:
-- rows of several ticks may wait side by side), $9 seconds after the tick at which the row is due.
-- won says whether this daemon was the first, id is null when the row of an
-- earlier tick is unfinished.  index job_schedules_pkey, jobs_unique_key
with mine as (
    update job_schedules set last_tick_at = $2
    where name = $1 and paused_at is null and last_tick_at < $2 and $2 <= now()
    returning name
), made as (
    insert into jobs (kind, args, queue, org_id, priority, unique_key, run_at, correlation_id)
    select $3, $4::text::jsonb, $5, $6, $7, $8, $2 + $9::float8 * interval '1 second',
           $1 || '/' || to_char($2 at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI"Z"')
    from mine
    on conflict do nothing
    returning id
)
select exists (select from mine) as won, (select id from made) as id, last_tick_at, paused_at is not null as paused
from job_schedules where name = $1;

-- name: pass_over
-- Count ticks up to $2 of schedule $1 as over, without a row.  index job_schedules_pkey
update job_schedules set last_tick_at = $2
where name = $1 and paused_at is null and last_tick_at < $2 and $2 <= now()
returning name;
