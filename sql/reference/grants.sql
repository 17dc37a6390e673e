-- What the daemon's role needs in schema app, and no more: it reads what jobs are about, changes the columns in which they
-- leave their mark, and deletes from tables that are purged.  Run where role jobsd_daemon is there.

grant usage on schema app to jobsd_daemon;
grant select on all tables in schema app to jobsd_daemon;

-- purged, or emptied account by account
grant delete on app.sessions, app.magic_links, app.custom_domains, app.aliases, app.destinations, app.destination_tokens,
    app.alias_destinations, app.webhooks, app.messages, app.header_snapshots, app.message_statistics, app.failed_emails,
    app.failed_forwards, app.overflow_hold, app.spam_quarantine, app.bandwidth, app.bandwidth_daily, app.bandwidth_weekly,
    app.subscriptions, app.billing_cycles, app.usage_events, app.notifications, app.exports, app.audit_log, app.accounts
    to jobsd_daemon;

-- written by jobs
grant insert, update on app.message_statistics, app.bandwidth_daily, app.bandwidth_weekly to jobsd_daemon;
grant insert on app.usage_events, app.notifications, app.audit_log to jobsd_daemon;

-- marked by jobs
grant update (active, deactivated_at) on app.aliases to jobsd_daemon;
grant update (removal_warned_at) on app.destinations to jobsd_daemon;
grant update (warned_at) on app.overflow_hold to jobsd_daemon;
grant update (forward_id, ended_at, outcome) on app.failed_forwards to jobsd_daemon;
grant update (state, location, size_bytes, sha256, ready_at, expires_at) on app.exports to jobsd_daemon;
grant update (email, name, message_retention, erased_at) on app.accounts to jobsd_daemon;
grant update (account_id, completed_at, rows_deleted) on app.deletion_requests to jobsd_daemon;
grant update (org_id, account_id, subject, detail) on app.audit_log to jobsd_daemon;
