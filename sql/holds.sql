-- What is paused: rows of job_holds, by the name of the gate.  The table is small; a claim reads it whole.

-- name: pause
-- Hold a gate.  $1 gate, $2 until, $3 or seconds from now (both null: until somebody resumes it), $4 actor, $5 reason.  A
-- second pause keeps the first one's beginning; one that says nothing new changes nothing and returns no row.
-- index job_holds_pkey
insert into job_holds as known (gate, cause, until, actor, reason)
values ($1, 'pause', coalesce($2::timestamptz, now() + $3::float8 * interval '1 second'), $4, $5)
on conflict (gate, cause) do update
set until = excluded.until, actor = excluded.actor, reason = excluded.reason
where (known.until, known.actor, known.reason) is distinct from (excluded.until, excluded.actor, excluded.reason)
returning since, until;

-- name: resume
-- No row returned: it was not paused.  $1 gate.  index job_holds_pkey
delete from job_holds where gate = $1 and cause = 'pause' returning since, until;

-- name: reset
-- Open a lane whatever its breaker says; a pause stays, and so does a disabled endpoint.  No row returned: it was not closed.
-- $1 gate.  index job_holds_pkey
delete from job_holds where gate = $1 and cause not in ('pause', 'disabled') returning since, until;

-- name: pauses
-- What is paused of a sort, of at most 1,000.  $1 what its gates begin with: 'queue:', 'kind:', …
select substr(gate, length($1::text) + 1) as name, gate, since, until, actor, reason
from job_holds
where cause = 'pause' and starts_with(gate, $1::text)
order by gate limit 1000;

-- name: schedules
-- Schedules that some daemon has adopted, of at most 1,000.
select name, kind, cron, timezone, last_tick_at, paused_at, paused_by, pause_reason, paused_until
from job_schedules order by name limit 1000;

-- name: pause_schedule
-- $1 name, $2 until, $3 or seconds from now, $4 actor, $5 reason.  No row returned: nothing new, or no such schedule.
-- index job_schedules_pkey
update job_schedules
set paused_at = coalesce(paused_at, now()), paused_until = coalesce($2::timestamptz, now() + $3::float8 * interval '1 second'),
    paused_by = $4, pause_reason = $5, updated_at = now()
where name = $1
  and (paused_at is null or (paused_until, paused_by, pause_reason)
       is distinct from (coalesce($2::timestamptz, now() + $3::float8 * interval '1 second'), $4, $5))
returning paused_at as since, paused_until as until;

-- name: resume_schedule
-- Ticks of the pause are over: none is caught up.  No row returned: it was not paused.  $1 name.  index job_schedules_pkey
update job_schedules
set paused_at = null, paused_until = null, paused_by = null, pause_reason = null, updated_at = now(),
    last_tick_at = greatest(last_tick_at, now())
where name = $1 and paused_at is not null
returning name;

-- name: call
-- Tell the daemons that an operator wants something: they ask at once what is to stop, and look anew at the rows and at the
-- schedules.  A plain hint would not do: it speaks of new rows, and what comes back is older than claims now ask for.
select pg_notify(left('jobsd:' || current_schema(), 63), 'control');
