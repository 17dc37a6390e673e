-- Tables with work for every verb of the catalogue, and what holds a run amid it.

create schema town;
create table town.holds (name text primary key, passed int not null);
create function town.hold() returns trigger language plpgsql as $$
begin
    if nextval('town.at_' || tg_argv[0]) > (select passed from town.holds where name = tg_argv[0]) then
        perform pg_advisory_xact_lock_shared(4711);
    end if;
    if tg_op = 'DELETE' then return old; end if;
    return new;
end $$;

create table town.notes (id int primary key, email text, at timestamptz, size int, warned_at timestamptz);
create index on town.notes (at, id);
create table town.details (note int primary key references town.notes, what text);
create table town.sums (day date primary key, notes bigint not null, bytes bigint not null);
create table town.events (actor text, subject text);
create table town.records (id int primary key, at timestamptz, what text);
create index on town.records (at);
create table town.passes (id int primary key, ends_at timestamptz, active boolean not null default true);
create index on town.passes (ends_at, id);
create table town.links (hash text primary key, expires_at timestamptz);
create index on town.links (expires_at);
create table town.calls (id int primary key, who text, at timestamptz, came timestamptz default now(), ms int);
create index on town.calls (came, id);
create index on town.calls (who, at);
create table town.daily (who text, day date, ms bigint not null, primary key (who, day));
create table town.cycles (
    id int primary key, who text, starts_at timestamptz, ends_at timestamptz, quota bigint, email text
);
create index on town.cycles (ends_at, id);
create table town.used (who text, at timestamptz, n bigint);
create index on town.used (who, at);
create table town.alarms (cycle int references town.cycles, threshold int, unique (cycle, threshold));
create table town.bell (who text, kind text);
create table town.sites (id int primary key, host text, dns text);
create table town.letters (
    id int primary key, sender text, recipient text, raw bytea, failed_at timestamptz, forward bigint, over_at timestamptz
);
create index on town.letters (failed_at, id);

-- Forty rows of each are to go or to change; as many others stay.

insert into town.notes
select n, 'n' || n || '@town.example', now() - n % 2 * interval '40 days' - interval '2 h', n, now() - interval '3 days'
from generate_series(1, 80) n;
insert into town.notes
select 1000 + n, 'w' || n || '@town.example', now() - interval '708 h', n
from generate_series(1, 40) n;
insert into town.details
select id, 'x' from town.notes where id % 3 > 0;
insert into town.records
select n, now() - n % 2 * interval '400 days', 'record ' || n from generate_series(1, 80) n;
insert into town.passes
select n, now() - interval '1 day' + n % 2 * interval '9 days' from generate_series(1, 80) n;
insert into town.links
select 'h' || n, now() - interval '1 day' + n % 2 * interval '9 days'
from generate_series(1, 80) n;
insert into town.calls (id, who, at, ms)
select n, 'w' || n % 40, '2026-03-01T12:00Z'::timestamptz + n % 7 * interval '1 day', n
from generate_series(1, 200) n;
insert into town.cycles
select n, 'w' || n, now() - interval '10 days', now() + interval '20 days', 100, 'w' || n || '@cycles.example'
from generate_series(1, 40) n;
insert into town.used
select 'w' || n, now() - interval '1 day', 65 + n % 4 * 12 from generate_series(1, 40) n;
insert into town.sites
select n, 's' || n || '.example' from generate_series(1, 40) n;
insert into domains (domain, registered_by, registered_key) values ('gone.example', 'sites', '{99999}');
insert into town.letters
select n, 'a' || n || '@x.example', 'b' || n || '@y.example', convert_to('letter ' || n, 'UTF8'), now() - interval '2 h'
from generate_series(1, 40) n;
insert into town.letters
select 1000 + n, 'nobody', 'b@y.example', 'x', now() - interval '3 h'
from generate_series(1, 7) n;
