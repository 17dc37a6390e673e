-- pre
-- The delivery log says when an attempt began and for which replay it was made, and is looked up by endpoint and by event.

alter table webhook_deliveries add column started_at timestamptz, add column replay_id bigint;
comment on column webhook_deliveries.started_at is 'When the attempt began; ended_at is when it was written down.';
comment on column webhook_deliveries.replay_id is 'The job of kind webhook_replay that asked for it; null: the event''s own delivery.';

-- What an endpoint was sent, by time; in the order in which a replay goes through it.
create index webhook_deliveries_endpoint on webhook_deliveries (endpoint_id, ended_at, job_id) where endpoint_id is not null;

-- What became of an event, at one endpoint or at all.
create index webhook_deliveries_event on webhook_deliveries (event_id, endpoint_id) where event_id is not null;

-- What goes to endpoints is found by them; the index by organisation is for what has none, and costs the others nothing.
drop index webhook_deliveries_org;
create index webhook_deliveries_org on webhook_deliveries (org_id, ended_at) where org_id is not null and endpoint_id is null;

-- An organisation's events, as a replay goes through them.
create index webhook_events_org on webhook_events (coalesce(org_id, ''), id);
