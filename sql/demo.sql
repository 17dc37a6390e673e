-- What `jobsd demo` asks about the rows it has inserted.

-- name: standing
-- Where rows $1 stand, wherever they are, and why: the verdict of a DNS check, the code of a dead letter, the gate of a
-- row that waits.  index jobs_pkey, job_history_id of each partition
select id, state, attempt, coalesce(result ->> 'verdict', case when state = 'dead' then last_error ->> 'code' else reason end) as why
from job_status where id = any ($1::bigint[]);

-- name: backlog
-- How many rows are not finished, counted up to $1.
select count(*)::int from (select from jobs limit $1) as unfinished;
