-- What the daemon's role needs in schema app, and no more: it reads what jobs are about, and changes what they change;
-- plans and organisations it only reads.  Run where role jobsd_daemon is there.

grant usage on schema app to jobsd_daemon;
grant select on all tables in schema app to jobsd_daemon;

-- Purged, or emptied account by account.  Who deletes locks the rows first, and `for update` asks for a right to update.
grant update, delete on app.sessions, app.magic_links, app.custom_domains, app.aliases, app.destinations,
    app.destination_tokens, app.alias_destinations, app.webhooks, app.messages, app.header_snapshots, app.message_statistics,
    app.failed_emails, app.failed_forwards, app.overflow_hold, app.spam_quarantine, app.bandwidth, app.bandwidth_daily,
    app.bandwidth_weekly, app.subscriptions, app.billing_cycles, app.usage_events, app.notifications, app.exports,
    app.audit_log, app.accounts to jobsd_daemon;

-- Written by jobs.
grant insert on app.message_statistics, app.bandwidth_daily, app.bandwidth_weekly, app.usage_events, app.notifications,
    app.audit_log to jobsd_daemon;

-- Marked as done; a request to delete stays when its account is gone.
grant update (account_id, completed_at, rows_deleted) on app.deletion_requests to jobsd_daemon;
