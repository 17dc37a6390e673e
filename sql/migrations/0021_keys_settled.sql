-- pre
-- Whether a row with two keys got in is known once its insert has ended, whatever the transaction wants of its constraints:
-- under `set constraints all immediate` it was asked before, and the idempotency key given up.
create function job_keys_later() returns trigger language plpgsql set search_path from current as $$
begin
    set constraints job_keys_settled deferred;
    return null;
end $$;
create trigger job_keys_later before insert on job_keys_unsure for each statement execute function job_keys_later();
