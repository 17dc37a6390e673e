-- What the e-mail channel asks of its own log.

-- name: delivered
-- What came of each recipient of a job so far.  Rows are written in the commit that ends an attempt, so a retry sees all
-- of its past.  $1 job id
-- index email_deliveries_job of each partition.  At most 500 recipients that settle once; only soft and deferred rows
-- repeat, and they are not asked for, so the limit cuts nothing off: 500 × (two unknown + one other).
select recipient, outcome from email_deliveries
where job_id = $1 and outcome in ('delivered', 'hard', 'unknown')
limit 1500;
