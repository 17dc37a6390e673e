-- Children: rows of one batch, whose callback is inserted when all of them have ended.  What is done at an end is the function
-- job_batches_end.  Lock order: rows of jobs, then job_batches from the highest id to the lowest.

-- name: begin
-- A batch, with its children in the same transaction; no row returned: the organisation has a batch of this key.
-- $1 key, $2 org_id, $3 parent batch, $4 callback's kind, $5 its args, $6 its queue (null: default), $7 its priority (null: 2),
-- $8 on_failure, $9 correlation_id.  index job_batches_key, job_batches_pkey
insert into job_batches (key, org_id, parent_id, callback_kind, callback_args, callback_queue, callback_priority, on_failure,
    correlation_id)
values ($1, $2, $3, $4::text, $5::text::jsonb, coalesce($6::text, 'default'), coalesce($7::smallint, 2::smallint), $8, $9)
on conflict do nothing
returning id;

-- name: known
-- The batch that has this key.  $1 key, $2 org_id.  index job_batches_key
select id from job_batches where coalesce(org_id, '') = coalesce($2::text, '') and key = $1;

-- name: add
-- Children of batch $1 ($2: an array of them; what they leave out has the column's default).  index jobs_pkey, job_batches_pkey
insert into jobs (kind, args, queue, org_id, priority, run_at, expires_at, max_attempts, unique_key, idempotency_key, ordering_key,
    lane, correlation_id, batch_id)
select kind, coalesce(args, '{}'), coalesce(queue, 'default'), org_id, coalesce(priority, 2::smallint), coalesce(run_at, now()),
    expires_at, max_attempts, unique_key, idempotency_key, ordering_key, lane, correlation_id, $1
from jsonb_to_recordset($2::text::jsonb) as r (kind text, args jsonb, queue text, org_id text, priority smallint,
    run_at timestamptz, expires_at timestamptz, max_attempts smallint, unique_key text, idempotency_key text, ordering_key text,
    lane text, correlation_id text)
on conflict do nothing
returning id;

-- name: ended
-- Children have ended.  $1 their batches, $2 their ids, $3 done, dead or cancelled.  Last in a transaction that ends rows: it
-- locks batches.  index job_batches_pkey, jobs_batch
select job_batches_end($1::bigint[], $2::bigint[], $3::text[]);

-- name: settle
-- Open batches after $1, $2 at most, of which no row is open: their last rows were deleted, or ended while somebody was
-- joining.  The last one that was looked at, and how many were over.  index job_batches_open; jobs_batch, one probe for each
with looked as materialized (
    select id, open_from from job_batches where ended_at is null and id > $1 order by id limit $2
), idle as materialized (
    select looked.id from looked
    left join lateral (
        select batch_id from jobs
        where batch_id is not null and (batch_id, id) >= (looked.id, looked.open_from) order by batch_id, id limit 1
    ) as head on head.batch_id = looked.id
    where head.batch_id is null
)
select (select max(id) from looked) as last, (select count(*)::int from looked) as looked,
       (select job_batches_end(array_agg(id), '{}', '{}') from idle) as over;

-- name: forget
-- Batches that were over more than $1 seconds ago; $2 rows at most.  index job_batches_ended; the locked rows by their place
delete from job_batches
where ctid = any (array(
    select ctid from job_batches where ended_at < now() - $1::float8 * interval '1 second'
    order by ended_at limit $2 for update skip locked));
