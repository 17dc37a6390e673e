-- A table of domain names, kept in step with jobsd's own table `domains`.  What this job has registered bears its name and the key
-- of the row it stands for; what others have registered it leaves as it is, and only tells the user's rows of it.

-- name: register
-- {scan}: a page of the user's table.  What is registered as it should be is left out first: it is nearly all, and to make a row of
-- it, or to look at its letters, costs more than to find it.  Names that no domain can have, and contacts and organisations that
-- `domains` would refuse, are counted and shown.  Of two rows with the same name the first in order of keys has it.
-- index domains_name, domains_pkey
with {scan}, named as materialized (
    select {key} as key, {name} as domain, {shown} as shown, {org} as org_id, {contact} as contact
    from scanned as s join {table} as t on {same} {joins}
    where {condition}
), news as materialized (
    select named.*, d.id
    from named left join domains as d on coalesce(d.org_id, '') = coalesce(named.org_id, '') and d.domain = named.domain
    where d.id is null or d.registered_by = {job}::text and d.registered_key = named.key
          and (d.expect <> {expect}::text::jsonb or d.contact is distinct from named.contact)
), judged as materialized (
    select news.*, {fits} as fits from news
), refused as (
    select shown from judged where not fits
), wanted as materialized (
    select distinct on (coalesce(org_id, ''), domain) id, key, domain, org_id, contact
    from judged where fits order by coalesce(org_id, ''), domain, key
), added as (
    insert into domains (org_id, domain, expect, contact, registered_by, registered_key)
    select org_id, domain, {expect}::text::jsonb, contact, {job}::text, key from wanted
    where id is null order by coalesce(org_id, ''), domain
    on conflict do nothing returning id
), changed as (
    update domains as d set expect = {expect}::text::jsonb, contact = w.contact
    from wanted as w
    where d.id = w.id and d.registered_by = {job}::text and d.registered_key = w.key
      and (d.expect <> {expect}::text::jsonb or d.contact is distinct from w.contact)
    returning d.id
)
select scanned, last, at, (select count(*)::int from added) as registered, (select count(*)::int from changed) as changed,
       (select count(*)::int from refused) as refused,
       (select array_agg(shown) from (select shown from refused order by shown limit 5) as a) as refused_names
from page;

-- name: remove
-- {scan}: a page of `domains`; those of this job whose row is gone, or has another name or organisation, are looked at no more.
with {scan}, gone as materialized (
    select {keys} from scanned as s join {table} as t on {same}
    where {condition}
    for update of t skip locked
), removed as (
    delete from {table} as t using gone as s where {same} returning 1
)
select scanned, last, at, (select count(*)::int from removed) as removed
from page;

-- name: gone
t.registered_by = {job}::text and not exists (
    select from {table} as u {joins}
    where {found} and {name} = t.domain and coalesce({org}, '') = coalesce(t.org_id, '') {conditions}
);

-- name: key_is
u.{column} = t.registered_key[{number}]::{type};

-- name: tell
-- {scan}: a page of the user's table; its rows are told what is known of their domains, where that is something new.
with {scan}, news as materialized (
    select {keys}, d.state, d.verified_at, d.conclusion
    from scanned as s join {table} as t on {same} {joins}
    join domains as d on coalesce(d.org_id, '') = coalesce({org}, '') and d.domain = {name}
    where {condition} and ({other})
    for update of t skip locked
), told as (
    update {table} as t set {changes} from news as s where {same} returning 1
)
select scanned, last, at, (select count(*)::int from told) as told
from page;

-- name: set
{column} = s.{known}::text::{type};

-- name: differs
t.{column} is distinct from d.{known}::text::{type};

-- name: state
state;

-- name: verified_at
verified_at;

-- name: conclusion
conclusion;

-- name: fits
(domain ~ '^[a-z0-9_-]+(\.[a-z0-9_-]+)+$' and domain !~ '[^.]{64,}' and char_length(domain) <= 236
 and (org_id is null or char_length(org_id) between 1 and 128 and org_id !~ '[\x01-\x1f\x7f]')
 and (contact is null or octet_length(contact) <= 254 and contact ~ '^[^\x01-\x20\x7f,;<>()"@]+@[^\x01-\x20\x7f,;<>()"@]+$'));

-- name: name
rtrim(lower({column}::text), '.');

-- name: text
{column}::text;

-- name: nobody
null::text;

-- name: every
true {conditions};

-- name: missing
-- For a rehearsal: a row whose name is not registered, and can be.
not exists (select from domains as d where coalesce(d.org_id, '') = coalesce({org}, '') and d.domain = {name})
and {fitting} {conditions};

-- name: unfit
not {fitting} {conditions};

-- name: fitting
(select {fits} from (select {name} as domain, {org} as org_id, {contact} as contact) as named);

-- name: owner
join {owner} as o on o.{key} = {row}.{column};

-- name: owner_row
o;

-- name: user_row
u;
