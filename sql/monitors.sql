-- What is monitored: asked by each check, and by `jobsd monitors`.

-- name: known
-- What is remembered of monitor $1.  index monitors_pkey
select state, failures, troubles, answers, goods, told, version, began_at, checked_at from monitors where name = $1;

-- name: list
-- The worst first, and of those the longest in their state.  A table of what one operator watches: small.
select name, org_id, target, state, since, outcome, code, reason, latency_ms, expires_at, checked_at, incidents, told
from monitors
order by array_position(array['down', 'degraded', 'new', 'up'], state), since, name
limit $1;

-- name: show
-- All of monitor $1.  index monitors_pkey
select name, org_id, target, state, since, failures, troubles, answers, goods, told, incidents, began_at, outcome, code, reason,
    latency_ms, expires_at, checked_at
from monitors where name = $1;

-- name: checks
-- The newest $2 checks of monitor $1.  index monitor_checks_monitor of each partition, from the newest day back
select ended_at, outcome, code, reason, latency_ms, phases, address, expires_at, state, notice, job_id
from monitor_checks where monitor = $1
order by ended_at desc limit $2;

-- name: forget
-- Monitors that nobody has looked at for $1 seconds: they are no longer in the config.  index monitors_age
delete from monitors where name = any (array(
    select name from monitors where checked_at < now() - $1 * interval '1 second' order by checked_at limit $2 for update skip locked));
