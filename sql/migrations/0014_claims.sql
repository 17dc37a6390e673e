-- pre
-- What a worker holds is said by one row a claimed batch, and who waits is found by organisation.

-- One row a claim: deleted by the commit that writes the last of its results.  It stands for an index over running rows,
-- which cost an entry a claim and, while a snapshot pins the vacuum horizon, a walk over all the dead ones at each look.
create table job_claims (
    id         bigint      generated always as identity primary key,
    worker_id  bigint      not null,
    ids        bigint[]    not null,
    claimed_at timestamptz not null default now()
) with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
alter table job_claims alter column ids set storage external; -- compressing them was a tenth of a claim

create index job_claims_worker on job_claims (worker_id, id);

insert into job_claims (worker_id, ids)
select worker_id, array_agg(id) from jobs where state = 'running' and worker_id is not null group by worker_id;

drop index jobs_running;

-- What a claim reads while several organisations wait in one queue: the oldest rows of each.
create index jobs_shares on jobs (queue, gate, priority, coalesce(org_id, ''), run_at, id) where state = 'ready';

comment on table job_claims is 'The rows each worker holds, a row for each claim: read when it dies.';
