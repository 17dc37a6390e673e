-- Fills the sample with rows that look like a product's: more of everything for a few accounts and organisations, ages on both sides
-- of every retention, some rows late.  Each statement makes rows $1 to $2 of its table out of their numbers and what stands
-- in the one row of pg_temp.fill: the seed, the time that counts as now, and how many rows each table is to have.  So the same seed,
-- size and time give the same rows.  They are made in the order in which they would have come, oldest first.

-- name: helpers
-- Functions of the session that fills; all are inlined.
-- `dice`: a number from 0 to 1 for row n; another salt is another throw.
create or replace function pg_temp.dice(seed bigint, n bigint, salt int) returns float8 language sql immutable parallel safe as
    'select (hashint8extended(n, seed * 1000003 + salt) & 9007199254740991) / 9007199254740992.0::float8';
-- `few`: a number from 1 to `most`, low ones far more often: one hundredth of them comes at every fifth throw.
create or replace function pg_temp.few(throw float8, most bigint) returns bigint language sql immutable parallel safe as
    'select 1 + least(most - 1, floor(most * throw * throw * throw)::bigint)';
-- `account`: the id of account n.
create or replace function pg_temp.account(seed bigint, n bigint) returns uuid language sql immutable parallel safe as
    $$select md5(seed || ' account ' || n)::uuid$$;
-- `secret`: the hash of a token of row n, 32 bytes.
create or replace function pg_temp.secret(seed bigint, n bigint, what text) returns bytea language sql immutable parallel safe as
    $$select sha256(convert_to(seed || what || n, 'UTF8'))$$;
-- `since`: when row n of `rows` came, if they came evenly over `span` until `now`.
create or replace function pg_temp.since(now timestamptz, span interval, n bigint, rows bigint) returns timestamptz
    language sql stable parallel safe as
    'select now - span * (1 - (n - 0.5) / rows)';
-- `size`: of a message in bytes: half are below 40 KiB, one in a hundred has more than 10 MiB.
create or replace function pg_temp.size(throw float8) returns bigint language sql immutable parallel safe as
    'select (4000 * exp(8 * throw * throw + 0.5 * throw))::bigint';

-- name: numbers
-- What the statements below are told, in one row.
create temporary table if not exists fill (
    seed bigint, now timestamptz, plans bigint, organisations bigint, accounts bigint, deletion_requests bigint,
    subscriptions bigint, billing_cycles bigint, sessions bigint, magic_links bigint, custom_domains bigint, aliases bigint,
    destinations bigint, destination_tokens bigint, alias_destinations bigint, webhooks bigint, messages bigint,
    header_snapshots bigint, message_statistics bigint, failed_emails bigint, failed_forwards bigint, overflow_hold bigint,
    spam_quarantine bigint, bandwidth bigint, notifications bigint, exports bigint, audit_log bigint
);

-- name: told
-- $1 seed and numbers as a JSON object · $2 now
insert into pg_temp.fill
select (jsonb_populate_record(null::pg_temp.fill, $1::jsonb || jsonb_build_object('now', $2::timestamptz))).*;

-- name: plans
-- The same four for everybody.
insert into app.plans (id, name, bytes, price_cents)
select id, name, bytes, price_cents
from (values (1, 'free', 'Free', 50000000::bigint, 0), (2, 'plus', 'Plus', 500000000, 300),
             (3, 'team', 'Team', 5000000000, 900), (4, 'fleet', 'Fleet', 50000000000, 4900)) as v (n, id, name, bytes, price_cents)
where n between $1::bigint and $2::bigint;

-- name: organisations
insert into app.organisations (id, name, created_at)
select 'org-' || n, 'Organisation ' || n, pg_temp.since(f.now, '3 years', n, f.organisations)
from pg_temp.fill f cross join generate_series($1::bigint, $2::bigint) as n;

-- name: accounts
-- Of each organisation as many as it is large.  One in fifty was deleted lately, one in twenty has a retention of its own.
insert into app.accounts (id, org_id, email, name, message_retention, created_at, deleted_at)
select pg_temp.account(f.seed, n), 'org-' || pg_temp.few(pg_temp.dice(f.seed, n, 1), f.organisations),
       'user' || n || '@people.example', 'User ' || n,
       case when pg_temp.dice(f.seed, n, 2) < 0.04 then interval '30 days'
            when pg_temp.dice(f.seed, n, 2) < 0.05 then interval '365 days' end,
       pg_temp.since(f.now, '2 years', n, f.accounts) - interval '200 days',
       case when pg_temp.dice(f.seed, n, 3) < 0.02 then f.now - interval '40 days' * pg_temp.dice(f.seed, n, 4) end
from pg_temp.fill f cross join generate_series($1::bigint, $2::bigint) as n;

-- name: deletion_requests
-- One for every account that was deleted: an account has at most one.
insert into app.deletion_requests (account_id, org_id, requested_at)
select id, org_id, deleted_at from app.accounts where deleted_at is not null order by deleted_at, id
offset $1::bigint - 1 limit $2::bigint - $1::bigint + 1;

-- name: subscriptions
-- One for each account: most are free.
insert into app.subscriptions (id, account_id, plan_id, started_at)
select n, pg_temp.account(f.seed, n),
       (array['fleet', 'team', 'team', 'plus', 'plus', 'plus', 'free', 'free', 'free', 'free'])
           [1 + floor(10 * pg_temp.dice(f.seed, n, 10))::int],
       date_trunc('day', f.now - interval '60 days' - interval '30 days' * pg_temp.dice(f.seed, n, 11), 'UTC')
from pg_temp.fill f cross join generate_series($1::bigint, $2::bigint) as n;

-- name: billing_cycles
-- The current one of each subscription and the one before, thirty days each; they begin on any day.
insert into app.billing_cycles (id, subscription_id, account_id, bytes, starts_at, ends_at)
select n, s.id, s.account_id, p.bytes, begins, begins + interval '720 hours'
from pg_temp.fill f cross join generate_series($1::bigint, $2::bigint) as n
join app.subscriptions s on s.id = (n + 1) / 2
join app.plans p on p.id = s.plan_id,
    lateral (select s.started_at + interval '720 hours'
             * (floor(extract(epoch from f.now - s.started_at) / (720 * 3600)) - n % 2) as begins) as at;

-- name: sessions
-- Of the last 60 days, good for 30; the last look is up to 20 days after the login.
insert into app.sessions (id, account_id, token_hash, created_at, last_seen_at, expires_at)
select n, pg_temp.account(f.seed, pg_temp.few(pg_temp.dice(f.seed, n, 20), f.accounts)), pg_temp.secret(f.seed, n, 'session'),
       born, born + least(f.now - born, interval '20 days' * pg_temp.dice(f.seed, n, 21) ^ 2), born + interval '30 days'
from pg_temp.fill f cross join generate_series($1::bigint, $2::bigint) as n,
    lateral (select pg_temp.since(f.now, '60 days', n, f.sessions) as born) as at;

-- name: magic_links
-- Of the last week, good for an hour or for a day.
insert into app.magic_links (id, account_id, token_hash, created_at, expires_at, used_at)
select n, pg_temp.account(f.seed, pg_temp.few(pg_temp.dice(f.seed, n, 25), f.accounts)), pg_temp.secret(f.seed, n, 'link'),
       born, born + case when n % 3 = 0 then interval '1 day' else interval '1 hour' end,
       case when pg_temp.dice(f.seed, n, 26) < 0.7 then least(f.now, born + interval '30 minutes' * pg_temp.dice(f.seed, n, 27)) end
from pg_temp.fill f cross join generate_series($1::bigint, $2::bigint) as n,
    lateral (select pg_temp.since(f.now, '7 days', n, f.magic_links) as born) as at;

-- name: custom_domains
insert into app.custom_domains (id, account_id, name, created_at)
select n, pg_temp.account(f.seed, pg_temp.few(pg_temp.dice(f.seed, n, 30), f.accounts)), 'domain' || n || '.example',
       pg_temp.since(f.now, '1 year', n, f.custom_domains)
from pg_temp.fill f cross join generate_series($1::bigint, $2::bigint) as n;

-- name: aliases
-- One in five expires within a year of its making, and half of those whose time is over have been deactivated.
insert into app.aliases (id, account_id, custom_domain_id, address, active, expires_at, deactivated_at, created_at)
select n, coalesce(d.account_id, pg_temp.account(f.seed, pg_temp.few(pg_temp.dice(f.seed, n, 35), f.accounts))), d.id,
       'alias' || n || '@' || coalesce(d.name, 'mail.example'),
       ends is null or ends >= f.now or pg_temp.dice(f.seed, n, 39) < 0.5, ends,
       case when ends < f.now and pg_temp.dice(f.seed, n, 39) >= 0.5 then ends end, born
from pg_temp.fill f cross join generate_series($1::bigint, $2::bigint) as n
cross join lateral (select pg_temp.since(f.now, '1 year', n, f.aliases) as born) as at
cross join lateral (select case when pg_temp.dice(f.seed, n, 37) < 0.2
                           then born + interval '365 days' * pg_temp.dice(f.seed, n, 38) end as ends) as until
left join app.custom_domains d
    on d.id = pg_temp.few(pg_temp.dice(f.seed, n, 36), f.custom_domains) and pg_temp.dice(f.seed, n, 34) < 0.15;

-- name: destinations
-- Older ones are verified but for one in six; of the unverified ones past 29 days one in three has been told.
insert into app.destinations (id, account_id, address, created_at, verified_at, removal_warned_at)
select n, pg_temp.account(f.seed, pg_temp.few(pg_temp.dice(f.seed, n, 40), f.accounts)), 'box' || n || '@home.example', born,
       case when verified then least(f.now, born + interval '3 hours' * pg_temp.dice(f.seed, n, 42)) end,
       case when not verified and born < f.now - interval '29 days' and n % 3 = 0 then born + interval '29 days' end
from pg_temp.fill f cross join generate_series($1::bigint, $2::bigint) as n,
    lateral (select pg_temp.since(f.now, '200 days', n, f.destinations) as born,
                    pg_temp.dice(f.seed, n, 41) < 0.84 as verified) as at;

-- name: destination_tokens
-- Of the newest destinations, good for a day; verified ones keep theirs until somebody tidies up.
insert into app.destination_tokens (id, destination_id, token_hash, created_at, expires_at)
select n, d.id, pg_temp.secret(f.seed, n, 'destination'), d.created_at, d.created_at + interval '1 day'
from pg_temp.fill f cross join generate_series($1::bigint, $2::bigint) as n
join app.destinations d on d.id = f.destinations - f.destination_tokens + n;

-- name: alias_destinations
-- One for each alias, to a destination of the same account where there is one: others lead nowhere yet.
insert into app.alias_destinations (alias_id, destination_id)
select a.id, d.id
from generate_series($1::bigint, $2::bigint) as n
join app.aliases a on a.id = n
cross join lateral (select id from app.destinations where account_id = a.account_id order by address limit 1) as d;

-- name: webhooks
insert into app.webhooks (id, account_id, name, url, events, active, created_at)
select n, pg_temp.account(f.seed, pg_temp.few(pg_temp.dice(f.seed, n, 45), f.accounts)), 'hook ' || n,
       'https://hooks.example/' || n, case n % 3 when 0 then '{*}' else '{message.*}' end::text[], n % 10 <> 0,
       pg_temp.since(f.now, '1 year', n, f.webhooks)
from pg_temp.fill f cross join generate_series($1::bigint, $2::bigint) as n;

-- name: messages
-- Of the last 120 days: a quarter is past the usual retention.
insert into app.messages (id, account_id, direction, state, sender, recipient, size_bytes, received_at)
select n, pg_temp.account(f.seed, pg_temp.few(pg_temp.dice(f.seed, n, 50), f.accounts)),
       case when pg_temp.dice(f.seed, n, 51) < 0.8 then 'in' else 'out' end,
       (array['delivered', 'bounced', 'held', 'refused'])[pg_temp.few(pg_temp.dice(f.seed, n, 52), 4)],
       'news' || n % 997 || '@sender.example', 'alias' || pg_temp.few(pg_temp.dice(f.seed, n, 53), f.aliases) || '@mail.example',
       pg_temp.size(pg_temp.dice(f.seed, n, 54)), pg_temp.since(f.now, '120 days', n, f.messages)
from pg_temp.fill f cross join generate_series($1::bigint, $2::bigint) as n;

-- name: header_snapshots
-- Of messages at even distances; every third is encrypted.
insert into app.header_snapshots (message_id, headers, encrypted, key_id, taken_at)
select m.id, case when n % 3 > 0 then 'From: ' || m.sender || E'\r\nTo: ' || m.recipient || E'\r\n' end,
       case when n % 3 = 0 then pg_temp.secret(f.seed, n, 'headers') end, case when n % 3 = 0 then 'key-' || n % 5 end, m.received_at
from pg_temp.fill f cross join generate_series($1::bigint, $2::bigint) as n
join app.messages m on m.id = 1 + (n - 1) * f.messages / f.header_snapshots;

-- name: message_statistics
-- What earlier purges left: a row or two for each account and day.
insert into app.message_statistics (account_id, day, direction, state, messages, size_bytes)
select pg_temp.account(f.seed, 1 + n % f.accounts), (f.now at time zone 'UTC')::date - 121 - (n / f.accounts)::int, 'in', 'delivered',
       1 + (9 * pg_temp.dice(f.seed, n, 60))::bigint, pg_temp.size(pg_temp.dice(f.seed, n, 61))
from pg_temp.fill f cross join generate_series($1::bigint, $2::bigint) as n;

-- name: failed_emails
-- Of the last 10 days.
insert into app.failed_emails (id, account_id, recipient, code, reason, failed_at)
select n, pg_temp.account(f.seed, pg_temp.few(pg_temp.dice(f.seed, n, 65), f.accounts)), 'gone' || n % 1009 || '@away.example',
       (array['5.1.1', '5.2.2', '4.4.7', '5.7.1'])[1 + n % 4], 'as its server said',
       pg_temp.since(f.now, '10 days', n, f.failed_emails)
from pg_temp.fill f cross join generate_series($1::bigint, $2::bigint) as n;

-- name: failed_forwards
-- Of the last 8 days; of those past two days most have ended.
insert into app.failed_forwards (id, account_id, sender, recipient, raw, first_failed_at, ended_at, outcome)
select n, pg_temp.account(f.seed, pg_temp.few(pg_temp.dice(f.seed, n, 70), f.accounts)), 'news' || n % 997 || '@sender.example',
       'box' || n || '@home.example',
       convert_to('From: news' || n % 997 || E'@sender.example\r\nSubject: Forward ' || n || E'\r\n\r\nRow ' || n || E'.\r\n', 'UTF8'),
       born, case when ended then born + interval '48 hours' end,
       case when ended then case when n % 4 = 0 then 'failed' else 'sent' end end
from pg_temp.fill f cross join generate_series($1::bigint, $2::bigint) as n,
    lateral (select pg_temp.since(f.now, '8 days', n, f.failed_forwards) as born) as at,
    lateral (select born < f.now - interval '48 hours' and pg_temp.dice(f.seed, n, 71) < 0.9 as ended) as over;

-- name: overflow_hold
-- Of the last 34 days; of those past 29 days half have been warned of.
insert into app.overflow_hold (id, account_id, sender, recipient, subject, size_bytes, held_at, warned_at)
select n, pg_temp.account(f.seed, pg_temp.few(pg_temp.dice(f.seed, n, 75), f.accounts)), 'news' || n % 997 || '@sender.example',
       'alias' || pg_temp.few(pg_temp.dice(f.seed, n, 76), f.aliases) || '@mail.example', 'Held ' || n,
       pg_temp.size(pg_temp.dice(f.seed, n, 77)), born,
       case when born < f.now - interval '29 days' and pg_temp.dice(f.seed, n, 78) < 0.5
            then least(f.now, born + interval '29 days 3 hours') end
from pg_temp.fill f cross join generate_series($1::bigint, $2::bigint) as n,
    lateral (select pg_temp.since(f.now, '34 days', n, f.overflow_hold) as born) as at;

-- name: spam_quarantine
-- Of the last 40 days: a quarter is past its time.
insert into app.spam_quarantine (id, account_id, sender, recipient, subject, score, size_bytes, quarantined_at)
select n, pg_temp.account(f.seed, pg_temp.few(pg_temp.dice(f.seed, n, 80), f.accounts)), 'win' || n % 10007 || '@spam.example',
       'alias' || pg_temp.few(pg_temp.dice(f.seed, n, 81), f.aliases) || '@mail.example', 'You have won ' || n,
       5 + 20 * pg_temp.dice(f.seed, n, 82), pg_temp.size(pg_temp.dice(f.seed, n, 83)),
       pg_temp.since(f.now, '40 days', n, f.spam_quarantine)
from pg_temp.fill f cross join generate_series($1::bigint, $2::bigint) as n;

-- name: bandwidth
-- Of the last 60 days; one row in fifty is up to three days late, the others a few minutes.  Enough for some to use up
-- their plan.
insert into app.bandwidth (id, account_id, bytes, emails, happened_at, recorded_at)
select n, pg_temp.account(f.seed, pg_temp.few(pg_temp.dice(f.seed, n, 85), f.accounts)),
       4 * pg_temp.size(pg_temp.dice(f.seed, n, 86)), 1 + floor(9 * pg_temp.dice(f.seed, n, 87))::int,
       came - pg_temp.dice(f.seed, n, 88) * case when n % 50 = 0 then interval '3 days' else interval '5 minutes' end, came
from pg_temp.fill f cross join generate_series($1::bigint, $2::bigint) as n,
    lateral (select pg_temp.since(f.now, '60 days', n, f.bandwidth) as came) as at;

-- name: notifications
-- Of the last 90 days; two of three have been read.
insert into app.notifications (id, account_id, kind, body, created_at, read_at)
select n, pg_temp.account(f.seed, pg_temp.few(pg_temp.dice(f.seed, n, 90), f.accounts)),
       (array['welcome', 'overflow', 'domain.verified'])[1 + n % 3], jsonb_build_object('n', n), born,
       case when pg_temp.dice(f.seed, n, 91) < 0.67 then least(f.now, born + interval '1 day' * pg_temp.dice(f.seed, n, 92)) end
from pg_temp.fill f cross join generate_series($1::bigint, $2::bigint) as n,
    lateral (select pg_temp.since(f.now, '90 days', n, f.notifications) as born) as at;

-- name: exports
-- Of the last 20 days: old ones have expired, some of them are still to be removed; the newest are wanted.
insert into app.exports (id, account_id, state, location, size_bytes, sha256, requested_at, ready_at, expires_at)
select n, pg_temp.account(f.seed, pg_temp.few(pg_temp.dice(f.seed, n, 95), f.accounts)), state,
       case state when 'ready' then 'exports/' || n || '.zip' end, case when state <> 'wanted' then 10000 + n end,
       case when state <> 'wanted' then pg_temp.secret(f.seed, n, 'export') end, born,
       case when state <> 'wanted' then born + interval '5 minutes' end,
       case when state <> 'wanted' then born + interval '7 days' end
from pg_temp.fill f cross join generate_series($1::bigint, $2::bigint) as n,
    lateral (select pg_temp.since(f.now, '20 days', n, f.exports) as born) as at,
    lateral (select case when born > f.now - interval '1 hour' or n = f.exports then 'wanted'
                         when born < f.now - interval '10 days' then 'expired' else 'ready' end as state) as age;

-- name: audit_log
-- Of the last 500 days, a quarter past its year; one in thirty is critical, and of those some are older than seven years.
insert into app.audit_log (id, org_id, account_id, actor, action, subject, detail, critical, at)
select n, 'org-' || pg_temp.few(pg_temp.dice(f.seed, owner, 1), f.organisations),
       pg_temp.account(f.seed, owner), case when n % 5 = 0 then 'job:alias_expiry' else 'account' end,
       (array['alias.made', 'alias.deactivated', 'login', 'key.changed', 'plan.changed'])[1 + n % 5], 'alias ' || n,
       jsonb_build_object('n', n), critical,
       pg_temp.since(f.now, case when critical then interval '3000 days' else interval '500 days' end, n, f.audit_log)
from pg_temp.fill f cross join generate_series($1::bigint, $2::bigint) as n,
    lateral (select pg_temp.few(pg_temp.dice(f.seed, n, 97), f.accounts) as owner,
                    pg_temp.dice(f.seed, n, 98) < 0.033 as critical) as at;
