-- pre
-- What operators may order: pauses of anything that can be held, with an end of their own; the cancelling of rows that run;
-- and for each order on rows what is needed to take it back.

-- A queue's pause is a hold like any other.  The old name stays as a view, for people and for daemons of the last version.
insert into job_holds (gate, cause, since, actor, reason)
select 'queue:' || name, 'pause', paused_at, paused_by, pause_reason from job_queues where paused_at is not null
on conflict do nothing;
drop table job_queues;
create view job_queues as
    select substr(gate, 7) as name, since as paused_at, actor as paused_by, reason as pause_reason, until as paused_until
    from job_holds
    where cause = 'pause' and gate like 'queue:%';
comment on view job_queues is 'Queues that are paused; jobsd queues pause NAME.';

-- Set on a row that runs when somebody wants it stopped: {"actor", "reason", "operation", "at"}.  It stands on the row
-- itself, so that whoever puts the row back at that moment sees it under the row's lock, and sends it to the gate 'cancel'.
-- The index holds only such rows, so hardly any; it is built here in one scan that keeps none.
-- No insert can bring it: no row is inserted running or at a gate.
alter table jobs
    add column cancel_asked jsonb,
    add constraint jobs_cancel_is_asked_of_what_runs check (cancel_asked is null or state = 'running' or gate = 'cancel');
create index jobs_cancel_asked on jobs (worker_id, id) where cancel_asked is not null;
comment on column jobs.cancel_asked is 'Who wants this running job stopped, and why.';

-- What an operation did to which row, for as long as it may be taken back; `was` is what cannot be read elsewhere.  The row
-- goes when it has been taken back, so that a second undo finds nothing.
create table job_undo (
    operation_id bigint      not null, -- job_audit.id
    job_id       bigint      not null,
    did          text        not null check (did in ('cancelled', 'retried', 'postponed')),
    was          jsonb       not null,
    at           timestamptz not null default now(),
    primary key (operation_id, job_id)
);
comment on table job_undo is 'What jobsd undo OPERATION needs; operations are rows of job_audit.';

-- An operation's row in job_audit is written with its first batch, and each batch adds its rows to it.  With the owner's rights,
-- since operators add to the audit and change nothing that stands there.  index job_audit_pkey
create function job_audit_add_up(operation bigint, changed bigint, asked bigint, ids bigint[]) returns void
language sql security definer set search_path from current as $$
    update job_audit
    set detail = jsonb_strip_nulls(jsonb_build_object('ids', ids)) || coalesce(detail, '{}')
                 || jsonb_build_object('rows', coalesce((detail ->> 'rows')::bigint, 0) + greatest(changed, 0),
                                       'asked', coalesce((detail ->> 'asked')::bigint, 0) + greatest(asked, 0))
    where id = operation
$$;

alter table job_schedules
    add column pause_reason text,
    add column paused_until timestamptz; -- it goes on by itself then
