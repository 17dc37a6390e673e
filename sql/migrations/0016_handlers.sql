-- pre
-- Lines that jobs logged, the newest of each job, one partition a day.

create table job_logs (
    job_id  bigint      not null,
    attempt smallint    not null,
    fence   int         not null, -- of the attempt: attempts that were not charged have the same number
    n       int         not null, -- counts from 1 in each attempt; a gap is what was dropped
    org_id  text,
    at      timestamptz not null default now(),
    level   text        not null,
    event   text        not null,
    fields  jsonb
) partition by range (at);

create index job_logs_job on job_logs (job_id, fence, n);
create table job_logs_default partition of job_logs default;

comment on table job_logs is 'The newest lines that each job logged with ctx.log; jobsd jobs logs ID shows them.';
