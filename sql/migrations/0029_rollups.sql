-- pre
-- How far roll-ups of the config have come.

create table job_rollups (
    name text        primary key,   -- of the job
    said text        not null,      -- a digest of what it adds up: once that has changed it begins anew
    upto timestamptz not null       -- rows that came before this are in, but for those whose transactions took their time
);

comment on table job_rollups is 'Up to when each roll-up of the config has added up what came; it goes on from there.';
