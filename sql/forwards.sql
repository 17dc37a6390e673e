-- Forwarded mail: what an attempt needs of it, and what upkeep does about the rows.

-- name: forward
-- The envelope of $1, how large its bytes are (null: they are gone), and for how long it has failed.  index email_forwards_pkey
select sender, recipients, smtputf8, octet_length(raw) as size_bytes, date_part('epoch', created_at) as received_at,
       date_part('epoch', now() - first_failed_at) as failing_s
from email_forwards where id = $1;

-- name: forward_raw
-- The bytes of $1; null when they are gone.  index email_forwards_pkey
select raw from email_forwards where id = $1;

-- name: adrift
-- Of $2 waiting forwards after id $1: gives up those older than $3 seconds, and those whose job is no more (cancelled, purged, out
-- of attempts, lost with its workers) for a minute's time.  Returns the last one looked at, how many were, and how many ended.
-- index email_forwards_waiting, jobs_unique_key; as scalars, of which no hash of a whole table can be made
with page as materialized (
    select id, created_at from email_forwards where state = 'waiting' and id > $1 order by id limit $2
), lost as materialized (
    select id, created_at < now() - $3::float8 * interval '1 second' as is_old
    from page
    where created_at < now() - $3::float8 * interval '1 second'
       or created_at < now() - interval '1 minute'
          and (select true from jobs where kind = 'email_forward' and unique_key = page.id::text and unique_key is not null) is null
), said as materialized (
    select email_forwards_said(jsonb_agg(jsonb_build_object(
        'forward_id', id, 'word', 'failed', 'code', case when is_old then 'expired' else 'job_ended' end,
        'reason', case when is_old then 'it waited for as long as forwards are kept (retention.email_forwards)'
                  else 'its job ended without it: cancelled, purged, or out of attempts' end))) as ended
    from lost having count(*) > 0
)
select (select max(id) from page) as last, (select count(*) from page)::int as looked_at,
       coalesce((select ended from said), 0) as ended;

-- name: forget_forwards
-- Ended forwards older than $1 seconds; $2 rows at most.  index email_forwards_age; the locked rows by their place
delete from email_forwards
where ctid = any (array(
    select ctid from email_forwards where created_at < now() - $1::float8 * interval '1 second' and state <> 'waiting'
    order by created_at limit $2 for update skip locked))
returning id;
