-- What push and sms ask of their own log.

-- name: first_tried
-- How many seconds ago job $1 was tried first; null: never.  index notification_deliveries_job of each partition
select date_part('epoch', now() - min(ended_at)) from notification_deliveries where job_id = $1;
