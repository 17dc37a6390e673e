-- pre
-- What stands still and why, and the organisations by name: the words in which operators and breakers steer the engine.

-- One row for each thing that must not be claimed now, by the name of the gate at which its rows wait: 'queue:…', 'kind:…',
-- 'org:…', 'lane:…'.  A claim reads the table whole, so it stays small: no row, no hold.  One gate may be held for several
-- causes at once and opens when the last is gone.
create table job_holds (
    gate   text        not null,
    cause  text        not null check (cause in ('pause', 'breaker', 'retry_after', 'quota')),
    since  timestamptz not null default now(),
    until  timestamptz,                          -- when it may be tried again or ends; null: when somebody says so
    actor  text,
    reason text,
    detail jsonb,
    primary key (gate, cause),
    constraint job_holds_gate_names_what_it_holds check (gate ~ '^(queue|kind|org|lane):.')
);

-- What is known of an organisation beside its rows; one that has no row here has weight 1.
create table job_orgs (
    org_id text primary key check (org_id ~ '^[^\x01-\x1f\x7f]{1,128}$'),
    weight real not null default 1 check (weight between 0.001 and 1000)
);

comment on table job_holds is 'What is paused or closed now, and why; rows that meet it wait at its gate.';
comment on table job_orgs is 'Shares of organisations: of two that wait, the one of weight 3 is given three rows for one of the other.';
