-- What operators ask and order, one command of `jobsd` each.  Every statement is bounded: by an id, by a `limit`, or by a
-- window of rows that it looks at, so that a large table makes no command slow.  Lock order: jobs rows, then history.

-- name: enqueue
-- One row as any producer would insert it; no row returned: its unique or idempotency key is taken.
-- $1 kind, $2 args, $3 queue, $4 org_id, $5 priority, $6 run_at, $7 or seconds from now, $8 expires_at, $9 or seconds from
-- now, $10 max_attempts, $11 unique_key, $12 idempotency_key, $13 ordering_key, $14 lane, $15 correlation_id,
-- $16 on_duplicate; null: the column's default, said again here since a parameter cannot be `default`
insert into jobs (kind, args, queue, org_id, priority, run_at, expires_at, max_attempts, unique_key, idempotency_key,
    ordering_key, lane, correlation_id, on_duplicate)
values ($1::text, $2::text::jsonb, coalesce($3::text, 'default'), $4, coalesce($5::smallint, 2),
    coalesce($6::timestamptz, now() + $7::float8 * interval '1 second', now()),
    coalesce($8::timestamptz, now() + $9::float8 * interval '1 second'),
    $10, $11, $12, $13, $14, $15, $16::text)
on conflict do nothing
returning id;

-- name: holder
-- Whose keys kept a row out.  $1 kind, $2 idempotency_key, $3 unique_key.  index job_keys_pkey, jobs_unique_key
select (select job_id from job_keys where kind = $1::text and key = $2::text) as idempotent,
       (select id from jobs where kind = $1::text and unique_key = $3::text) as unfinished;

-- name: emitted
-- After an insert that was one of an event: its id, and that of the event which has its key.  $1 org_id, $2 idempotency_key.
-- index job_keys_pkey
select currval('webhook_events_id') as id,
       (select job_id from job_keys
        where $2::text is not null and kind = 'webhook_events' and key = concat($1::text, E'\x1f', $2::text)) as keyed;

-- name: claim_one
-- Take exactly one row, which the same transaction has inserted, so that no daemon can have seen it.  Leased and fenced as
-- in queue.sql's claim, whose columns it returns.  $1 id, $2 worker.  index jobs_pkey
with mine as materialized (
    select id from jobs
    where id = $1 and state = 'ready' and exists (select from job_workers where id = $2 and lease_until > now())
    for update
), receipt as (
    insert into job_claims (worker_id, ids) select $2, array[id] from mine returning id
)
update jobs
set state = 'running', gate = '', attempt = attempt + 1, fence = fence + 1, worker_id = $2, started_at = now(),
    unique_key = case when on_duplicate <> 'ignore' then null else unique_key end
where id = any (array(select id from mine))
returning id, fence, kind, queue, priority, attempt, args::text::varchar(262145), date_part('epoch', run_at),
          date_part('epoch', now()), org_id, max_attempts, date_part('epoch', expires_at), ordering_key, lane,
          correlation_id, traceparent, actor_id, project_id, gate, crashes, worker_id, (select id from receipt), batch_id;

-- name: stay
-- The session that holds the lock is idle while the job runs, and must not be ended for it.
set idle_session_timeout = 0;

-- name: lock
-- One `jobsd run` of a kind at a time; freed when the session ends, however it ends.  $1 kind
select pg_try_advisory_lock(hashtextextended('jobsd run ' || current_schema() || ' ' || $1::text, 0));

-- name: unlock
-- Before the session ends, since a server may need a moment to see that it has.
select pg_advisory_unlock_all();

-- name: list_live
-- Live rows, newest first.  $1 below this id, $2 rows to look at, $3 state (null: any; scheduled: ready, but later),
-- $4 kind, $5 queue, $6 org_id, $7 rows at most.  index jobs_pkey, read backwards
select id, kind, queue, org_id, priority, case when state = 'ready' and run_at > now() then 'scheduled' else state end as state,
       attempt, run_at, created_at, started_at, null::timestamptz as finished_at, nullif(gate, '') as reason,
       last_error ->> 'message' as error
from (select * from jobs where id < $1 order by id desc limit $2) as newest
where ($3::text is null or state = $3 or ($3 = 'scheduled' and state = 'ready' and run_at > now()))
  and ($4::text is null or kind = $4) and ($5::text is null or queue = $5) and ($6::text is null or org_id = $6)
order by id desc limit $7;

-- name: list_running
-- Running rows, newest first: they are few, but may be the oldest of a long backlog.  $1 below this id, $2 rows to look at,
-- $3 kind, $4 queue, $5 org_id, $6 rows at most.  index jobs_pkey, for each claim
select id, kind, queue, org_id, priority, state, attempt, run_at, created_at, started_at,
       null::timestamptz as finished_at, null as reason, last_error ->> 'message' as error
from (select job.*
      from job_claims as claim
      cross join lateral (select * from jobs where id = any (claim.ids) and worker_id = claim.worker_id and state = 'running')
                         as job
      limit $2) as held
where id < $1
  and ($3::text is null or kind = $3) and ($4::text is null or queue = $4) and ($5::text is null or org_id = $5)
order by id desc limit $6;

-- name: list_finished
-- Finished rows, highest id first.  Parameters as in list_live.  index job_history_id of each partition, merged
select id, kind, queue, org_id, priority, state, attempt, run_at, created_at, started_at, finished_at, reason,
       last_error ->> 'message' as error
from (select * from job_history where id < $1 order by id desc limit $2) as newest
where ($3::text is null or state = $3)
  and ($4::text is null or kind = $4) and ($5::text is null or queue = $5) and ($6::text is null or org_id = $6)
order by id desc limit $7;

-- name: list_batch
-- Children of batch $8 that have not ended, newest first; the other parameters as in list_live.  index jobs_batch, read backwards
select id, kind, queue, org_id, priority, case when state = 'ready' and run_at > now() then 'scheduled' else state end as state,
       attempt, run_at, created_at, started_at, null::timestamptz as finished_at, nullif(gate, '') as reason,
       last_error ->> 'message' as error
from (select * from jobs where batch_id = $8 and id < $1 order by id desc limit $2) as newest
where ($3::text is null or state = $3 or ($3 = 'scheduled' and state = 'ready' and run_at > now()))
  and ($4::text is null or kind = $4) and ($5::text is null or queue = $5) and ($6::text is null or org_id = $6)
order by id desc limit $7;

-- name: floor_live
-- The lowest id that list_live looked at; null when it saw all there are.  $1 below this id, $2 rows to look at
select id from jobs where id < $1 order by id desc offset $2 - 1 limit 1;

-- name: floor_finished
-- As floor_live, of list_finished.
select id from job_history where id < $1 order by id desc offset $2 - 1 limit 1;

-- name: floor_batch
-- As floor_live, of list_batch: $3 batch.
select id from jobs where batch_id = $3 and id < $1 order by id desc offset $2 - 1 limit 1;

-- name: find
-- One job wherever it is, live first; args apart, as text, since no parser need be able to read them.  $1 id
-- index jobs_pkey, job_history_id of each partition
(select to_jsonb(jobs) - 'args' as job, args::text as args from jobs where id = $1)
union all
(select to_jsonb(job_history) - 'args', args::text from job_history where id = $1 order by finished_at desc limit 10);

-- name: attempts
-- Failed attempts of job $1, oldest first.  index job_attempts_job of each partition
select attempt, outcome, code, started_at, ended_at, retry_at, error ->> 'message' as error
from job_attempts where job_id = $1 order by ended_at limit 100;

-- name: deliveries
-- What the channels wrote down about job $1, oldest first.  index …_job of each partition of each log
select channel, row from (
    (select 'webhook' as channel, ended_at, to_jsonb(webhook_deliveries) - 'response_headers' as row
     from webhook_deliveries where job_id = $1 order by ended_at limit 100)
    union all
    (select 'email', ended_at, to_jsonb(email_deliveries)
     from email_deliveries where job_id = $1 order by ended_at limit 100)
    union all
    (select channel, ended_at, to_jsonb(notification_deliveries)
     from notification_deliveries where job_id = $1 order by ended_at limit 100)
    union all
    (select 'dns_check', ended_at, to_jsonb(domain_checks)
     from domain_checks where job_id = $1 order by ended_at limit 100)
    union all
    (select 'monitor', ended_at, to_jsonb(monitor_checks)
     from monitor_checks where job_id = $1 order by ended_at limit 100)
) as logged
order by ended_at;

-- name: logs
-- Lines that job $1 logged after ($2 fence, $3 number), oldest first; $4 at most.  index job_logs_job of each partition
select attempt, fence, n, at, level, event, fields from job_logs
where job_id = $1 and (fence, n) > ($2::int, $3::int) order by fence, n limit $4;

-- name: batch
-- Batch $1, or that of live row $2; its open children are counted up to 10,000, and the first of them is named.
-- index job_batches_pkey, jobs_pkey, jobs_batch
select batch.*, child.open, child.first_open
from job_batches as batch
cross join lateral (
    select count(*)::int as open, min(id) as first_open
    from (select id from jobs
          where batch_id is not null and batch_id = batch.id order by batch_id, id limit 10000) as bounded
) as child
where batch.id = coalesce($1::bigint, (select batch_id from jobs where id = $2::bigint));

-- name: standing
-- Everything about live row $1 that decides when it runs.
-- index jobs_pkey (also for each claim), jobs_ordered_running, jobs_ordered; jobs_ready, one probe for each class ahead of it;
-- jobs_shares, one for each organisation.
-- `ahead`, `before_it` (of its own organisation and class) and `busy` count up to 10,000, `others` (organisations that wait
-- there too) up to 100.
select job.id, job.kind, job.queue, job.state, job.gate, job.priority, job.run_at, job.expires_at, job.started_at,
       job.ordering_key, now() as now, worker.name as worker, worker.lease_until > now() as worker_lives,
       coalesce(worker.lease_until, job.started_at) as lease_until,
       pause.gate as paused, pause.since as paused_at, pause.until as paused_until, pause.actor as paused_by,
       pause.reason as pause_reason, job.cancel_asked is not null as cancel_asked,
       coalesce(
           (select other.id from jobs other
            where other.kind = job.kind and other.ordering_key = job.ordering_key and other.state = 'running'
              and other.id <> job.id),
           (select other.id from jobs other
            where other.kind = job.kind and other.ordering_key = job.ordering_key and other.id < job.id
              and not other.aside and not job.aside
            order by other.id limit 1)) as behind,
       (select coalesce(sum(class.n), 0)::int
        from (values (1::smallint), (2::smallint), (3::smallint), (4::smallint)) as c (priority)
        cross join lateral (
            select count(*) as n
            from (select from jobs other
                  where other.queue = job.queue and other.gate = job.gate and other.priority = c.priority
                    and other.state = 'ready' and other.run_at <= now()
                    and (other.run_at, other.id)
                        < (case when c.priority = job.priority then job.run_at else 'infinity' end, job.id)
                  order by other.run_at, other.id limit 10000) as bounded
        ) as class
        where c.priority <= job.priority) as ahead,
       job.org_id,
       (with recursive other as (
            (select coalesce(org_id, '') as org from jobs
             where state = 'ready' and queue = job.queue and gate = job.gate and priority = job.priority
             order by coalesce(org_id, ''), run_at, id limit 1)
            union all
            select next.org from other cross join lateral (
                select coalesce(org_id, '') as org from jobs
                where state = 'ready' and queue = job.queue and gate = job.gate and priority = job.priority
                  and coalesce(org_id, '') > other.org
                order by coalesce(org_id, ''), run_at, id limit 1
            ) as next
        )
        select count(*)::int from (select org from other limit 101) as seen
        where org <> coalesce(job.org_id, '')) as others,
       (select count(*)::int
        from (select from jobs other
              where other.state = 'ready' and other.queue = job.queue and other.gate = job.gate
                and other.priority = job.priority and coalesce(other.org_id, '') = coalesce(job.org_id, '')
                and other.run_at <= now() and (other.run_at, other.id) < (job.run_at, job.id)
              order by other.run_at, other.id limit 10000) as bounded) as before_it,
       (select count(*)::int
        from (select other.queue
              from job_claims as claim
              cross join lateral (select queue from jobs
                                  where id = any (claim.ids) and worker_id = claim.worker_id and state = 'running') as other
              limit 10000) as held
        where held.queue = job.queue) as busy
from jobs as job
left join job_workers as worker on worker.id = job.worker_id
left join lateral (
    select gate, since, until, actor, reason from job_holds
    where cause = 'pause'
      and gate in ('queue:' || job.queue, 'kind:' || job.kind, 'org:' || job.org_id,
                   'lane:' || job_lane(job.kind, job.args, job.lane), job.gate)
    order by until desc nulls first limit 1
) as pause on true
where job.id = $1;

-- name: ending
-- How job $1 ended, if it has; the last time, if more than once.  index job_history_id of each partition
select state, finished_at, reason, last_error ->> 'message' as error from job_history
where id = $1 order by finished_at desc limit 1;

-- name: workers
-- Who runs now, of at most 1,000.
select id, name, version, kinds, queues, draining, started_at, lease_until > now() as lives,
       date_part('epoch', now() - heartbeat_at) as silent_s
from job_workers order by id limit 1000;

-- name: bucket
-- A limit's bucket, whose gate may be split into name and key in several ways: $1 names, $2 keys.  `debt_s` is how far its
-- debt reaches into the future, `held` how many places are taken, `share` the part of its rate that it lends, `day_at` and
-- `day_n` quarters of an hour and what was lent in each.  index job_limits_pkey, job_limit_holds_pkey
select bucket.name, bucket.key,
       case when bucket.full_at > now() then date_part('epoch', bucket.full_at - now()) else 0 end as debt_s,
       (select coalesce(sum(held), 0)::int from job_limit_holds hold
        where hold.name = bucket.name and hold.key = bucket.key) as held,
       job_limit_share(bucket.share, bucket.slowed_at, now()) as share, bucket.day_at, bucket.day_n
from unnest($1::text[], $2::text[]) as asked (name, key)
join job_limits as bucket on bucket.name = asked.name and bucket.key = asked.key
limit 1;

-- name: states
-- What ids $1 are now: (id, state), of both places.  index jobs_pkey, job_history_id of each partition
select id, state from jobs where id = any ($1::bigint[])
union all
select id, state from job_history where id = any ($1::bigint[]);

-- name: dead
-- Dead letters, newest first, of a window of them.  $1, $2 before this (finished_at, id), $3 finished before, $4 kind,
-- $5 queue, $6 org_id, $7 code, $8 rows to look at, $9 rows, $10 lane, $11 priority, $12 and $13 created from and before.
-- index job_history_dead of each partition, merged backwards
select id, kind, queue, org_id, attempt, finished_at, last_error ->> 'code' as code, reason
from (select * from job_history
      where state = 'dead' and (finished_at, id) < ($1::timestamptz, $2::bigint) and finished_at < $3::timestamptz
      order by finished_at desc, id desc limit $8) as newest
where ($4::text is null or kind = $4) and ($5::text is null or queue = $5) and ($6::text is null or org_id = $6)
  and ($7::text is null or last_error ->> 'code' = $7 or reason = $7)
  and ($10::text is null or lane = $10) and ($11::smallint is null or priority = $11)
  and ($12::timestamptz is null or created_at >= $12) and ($13::timestamptz is null or created_at < $13)
order by finished_at desc, id desc limit $9;

-- name: busy
-- Running rows of queue $1, counted up to 10,000.  index jobs_pkey, for each claim
select count(*)::int
from (select job.queue
      from job_claims as claim
      cross join lateral (select queue from jobs
                          where id = any (claim.ids) and worker_id = claim.worker_id and state = 'running') as job
      limit 10000) as held
where queue = $1;

-- name: audit
-- Who did what to whom, and why; in the transaction of the deed.  $1 actor, $2 action, $3 subject, $4 reason, $5 detail
insert into job_audit (actor, action, subject, reason, detail) values ($1, $2, $3, $4, $5::text::jsonb)
returning id;
