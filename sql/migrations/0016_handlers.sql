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
create table job_logs_default partition of job_logs default
    with (autovacuum_freeze_min_age = 0, toast.autovacuum_freeze_min_age = 0); -- as the days, see job_partitions_settings

comment on table job_logs is 'The newest lines that each job logged with ctx.log; jobsd jobs logs ID shows them.';

-- Children: rows with a batch.  A batch is over when none of its rows is live, and inserts its callback then, once.

-- Ends are counted by whoever ends rows, one update for all it ends of a batch; what is still open is not counted but looked up,
-- since a number of it would be a row that every producer waits for.  What a callback is made of has the checks that table
-- jobs has: an end must not fail because of it.
create table job_batches (
    id                bigint      generated always as identity primary key,
    key               text        check (key ~ '^[^\x01-\x1f\x7f]+$' and length(key) <= 255),
    org_id            text        check (org_id ~ '^[^\x01-\x1f\x7f]{1,128}$'),
    parent_id         bigint,
    callback_kind     job_kind,
    callback_args     jsonb       not null default '{}',
    callback_queue    job_queue   not null default 'default',
    callback_priority smallint    not null default 2 check (callback_priority between 1 and 4),
    on_failure        text        not null default 'call' check (on_failure in ('call', 'skip')),
    correlation_id    text        check (correlation_id ~ '^[^\x01-\x1f\x7f]{1,128}$'),
    created_at        timestamptz not null default now(),

    -- owned by the engine
    done        int         not null default 0,
    failed      int         not null default 0,
    cancelled   int         not null default 0,
    failed_ids  bigint[]    not null default '{}', -- the first hundred
    open_from   bigint      not null default 0,    -- no row with a lower id was open when somebody looked
    ended_at    timestamptz,
    callback_id bigint,
    trouble     text,                              -- why there is no callback, where there should be one

    constraint job_batches_callback_args_is_an_object check (jsonb_typeof(callback_args) = 'object'),
    constraint job_batches_callback_args_at_most_250_kib check (octet_length(callback_args::text) <= 256000),
    constraint job_batches_parent_is_older check (parent_id < id)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);

create unique index job_batches_key on job_batches (coalesce(org_id, ''), key) where key is not null;
create index job_batches_open on job_batches (id) where ended_at is null;
create index job_batches_parent on job_batches (parent_id) where parent_id is not null and ended_at is null;
create index job_batches_ended on job_batches (ended_at) where ended_at is not null;

-- A column without a default, and an index that is built in one scan and keeps none of the rows.
alter table jobs add column batch_id bigint;
create index jobs_batch on jobs (batch_id, id) where batch_id is not null;
comment on column jobs.batch_id is 'The batch it is a child of; see job_batches.';

-- Who joins a batch keeps it from ending until he commits, by a lock that ends do not wait for, nor joiners for each other.
-- Who works for one organisation joins batches of that organisation only.  Which those are is the login's (see job_own_orgs); a
-- role that was set, which is not seen from here, could be narrower, so it takes the row's organisation.
create function jobs_children() returns trigger language plpgsql security definer set search_path from current as $$
begin
    perform from job_batches
    where id = new.batch_id and ended_at is null
      and (select orgs is null or org_id = any (orgs) from job_own_orgs)
      and (current_setting('role') = 'none' or org_id is null or org_id = new.org_id)
    for key share;
    if not found then
        raise exception 'there is no open batch % for this row', new.batch_id
            using errcode = 'foreign_key_violation', schema = tg_table_schema, table = tg_table_name,
                  constraint = 'jobs_batch_is_open', column = 'batch_id',
                  hint = 'Insert children in the transaction that inserts their batch, or while another child of it runs.';
    end if;
    return new;
end $$;

create trigger jobs_children before insert on jobs for each row
    when (new.batch_id is not null) execute function jobs_children();

create function job_batches_nested() returns trigger language plpgsql security definer set search_path from current as $$
begin
    perform from job_batches
    where id = new.parent_id and ended_at is null
      and (select orgs is null or org_id = any (orgs) from job_own_orgs)
      and (current_setting('role') = 'none' or org_id is null or org_id = new.org_id)
    for key share;
    if not found then
        raise exception 'there is no open batch % for this batch', new.parent_id
            using errcode = 'foreign_key_violation', schema = tg_table_schema, table = tg_table_name,
                  constraint = 'job_batches_parent_is_open', column = 'parent_id';
    end if;
    return new;
end $$;

create trigger job_batches_nested before insert on job_batches for each row
    when (new.parent_id is not null) execute function job_batches_nested();

-- Children have ended, each with its batch and its outcome (done, dead, cancelled); batches without children are only looked
-- at.  Those that are over now insert their callback, into their parent's batch if they have one.  How many are over.
-- Batches are locked from the highest id to the lowest, parents (which are older) after those in them, after all rows of jobs,
-- and until the commit: what else ended is seen, since each statement here looks anew.  An end waits for ends only.
-- Who joins holds a key share lock, which keeps the batch open: whoever ends its last row then does not wait for him, but leaves
-- it to the next end, or to the keeper's look.  Index jobs_batch, from the batch on: asked for the lowest id of a batch the planner may
-- walk the ids of the whole table.
create function job_batches_end(batches bigint[], children bigint[], outcomes text[]) returns int
language plpgsql strict security definer set search_path from current as $$
declare
    todo bigint[] := array(select distinct b from unnest(batches) as b);
    this job_batches;
    ends record;
    head record;
    callback bigint;
    over int := 0;
begin
    while cardinality(todo) > 0 loop
        select * into this from job_batches where id = (select max(b) from unnest(todo) as b) for no key update;
        todo := array(select b from unnest(todo) as b where b <> (select max(m) from unnest(todo) as m));
        continue when this.id is null;
        select count(*) filter (where outcome = 'done') as done, count(*) filter (where outcome = 'dead') as failed,
               count(*) filter (where outcome = 'cancelled') as cancelled, count(*) as n,
               array_agg(child order by child) filter (where outcome = 'dead') as failed_ids
        into ends from unnest(batches, children, outcomes) as e (batch, child, outcome) where batch = this.id and child is not null;
        select batch_id, id into head from jobs
        where batch_id is not null and (batch_id, id) >= (this.id, this.open_from) order by batch_id, id limit 1;
        if ends.n > 0 or head.batch_id = this.id and head.id > this.open_from then
            update job_batches
            set done = done + ends.done, failed = failed + ends.failed, cancelled = cancelled + ends.cancelled,
                failed_ids = (failed_ids || coalesce(ends.failed_ids, '{}'))[:100],
                open_from = case when head.batch_id = this.id then head.id else open_from end
            where id = this.id
            returning * into this;
        end if;
        continue when this.ended_at is not null or head.batch_id = this.id;
        perform from job_batches where id = this.id for update skip locked;
        continue when not found;
        select batch_id into head from jobs
        where batch_id is not null and (batch_id, id) >= (this.id, 0) order by batch_id, id limit 1;
        continue when head.batch_id = this.id
                      or exists (select from job_batches where parent_id = this.id and ended_at is null);
        callback := null;
        if this.callback_kind is not null and (this.on_failure = 'call' or this.failed + this.cancelled = 0) then
            begin
                insert into jobs (kind, args, queue, org_id, priority, correlation_id, batch_id)
                values (this.callback_kind,
                        this.callback_args || jsonb_build_object('batch', jsonb_build_object(
                            'id', this.id, 'total', this.done + this.failed + this.cancelled, 'done', this.done,
                            'failed', this.failed, 'cancelled', this.cancelled, 'failed_ids', to_jsonb(this.failed_ids))),
                        this.callback_queue, this.org_id, this.callback_priority, this.correlation_id, this.parent_id)
                returning id into callback;
            exception when data_exception or integrity_constraint_violation then -- a constraint of somebody else's, say
                this.trouble := sqlerrm;
            end;
        end if;
        update job_batches set ended_at = now(), callback_id = callback, trouble = this.trouble where id = this.id;
        over := over + 1;
        if this.parent_id is not null and this.parent_id <> all (todo) then
            todo := todo || this.parent_id;
        end if;
    end loop;
    return over;
end $$;

-- A batch whose transaction brings no child is over when it commits.
create function job_batches_begun() returns trigger language plpgsql security definer set search_path from current as $$
begin
    perform job_batches_end(array[new.id], '{}', '{}');
    return null;
end $$;

create constraint trigger job_batches_begun after insert on job_batches
    deferrable initially deferred for each row execute function job_batches_begun();

comment on table job_batches is 'Rows of jobs with one callback, inserted when all of them have ended.';

-- Children may come by COPY too.  As in the step that made job_intake: written down from what table jobs has.
do $do$
declare
    names text;
    givens text;
begin
    select string_agg(quote_ident(a.attname), ', ' order by a.attnum),
           string_agg(case when a.attnotnull and d.adbin is not null
                           then format('coalesce(new.%I, %s)', a.attname, pg_get_expr(d.adbin, d.adrelid))
                           else format('new.%I', a.attname) end, ', ' order by a.attnum)
    into names, givens
    from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where a.attrelid = 'jobs'::regclass and not a.attisdropped
      and (a.attname = 'batch_id'
           or a.attname in (select attname from pg_attribute where attrelid = 'job_intake'::regclass and attnum > 0));
    execute format('create or replace view job_intake as select %s from jobs where false', names);
    execute format('create or replace function job_intake_insert() returns trigger language plpgsql set search_path from current as $$
begin
    insert into jobs (%s) values (%s);
    return new;
end $$', names, givens);
end $do$;
