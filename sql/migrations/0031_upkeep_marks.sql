-- pre
-- Domains that a job of the config has registered for a table of the user's.

alter table domains
    add column registered_by text,
    add column registered_key text[];

comment on column domains.registered_by is 'The job of the config that registered it, and removes it when its row is gone; null: somebody else.';
comment on column domains.registered_key is 'The key of the row it stands for there.';

-- The number of a forward before its row is made: whoever hands one over from a table of his own writes it down there in the same
-- statement.  With its owner's rights: a sequence is nothing that the daemon may otherwise touch.
create function email_forward_number() returns bigint language sql volatile security definer set search_path from current as $$
    select nextval(pg_get_serial_sequence('email_forwards', 'id'))
$$;
