-- pre
-- The small indexes say what the statements that ride them say: otherwise a plan made without statistics joins them with the
-- bitmap of every ready row.
drop index jobs_expiring;
create index jobs_expiring on jobs (expires_at) where expires_at is not null and state = 'ready';
drop index jobs_blocking;
create index jobs_blocking on jobs (blocks_until) where blocks_until is not null and not aside and state = 'ready';
