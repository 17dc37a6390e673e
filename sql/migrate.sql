-- The migrations' own bookkeeping.

-- name: lock
-- One migration at a time in a database; freed when the session ends, however it ends.  $1 schema
select pg_advisory_lock(hashtextextended('jobsd migrate ' || $1, 0));

-- name: schema_exists
-- $1 schema
select exists (select from pg_namespace where nspname = $1);

-- name: create
create table if not exists job_migrations (
    number     int primary key,
    name       text        not null,
    checksum   text        not null,
    applied_at timestamptz not null default now()
);

-- name: applied
select number, name, checksum from job_migrations order by number;

-- name: record
insert into job_migrations (number, name, checksum) values ($1, $2, $3);

-- name: exists
-- Whether the bookkeeping table is there, looked for in the first schema of the search_path.
select to_regclass('job_migrations') is not null;

-- name: partitions
-- Today's partitions and those of the next $2 days, of those of tables $1 that are there yet.
select job_partitions_make(parent, $2::int) from unnest($1::text[]) as parent where to_regclass(quote_ident(parent)) is not null;
