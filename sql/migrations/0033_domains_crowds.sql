-- pre
-- As before, and: of a crowd of domains those behind the first hundred have nobody who waits for their first check, so their
-- rows go behind those of people who click.
create or replace function domains_arrived() returns trigger language plpgsql security definer set search_path from current as $$
begin
    insert into jobs (kind, args, queue, org_id, unique_key, run_at, priority)
    select 'domain_check', jsonb_build_object('domain', domain, 'id', id), queue, org_id, id::text,
           now() + greatest(nth - 100, 0) * interval '60 ms', case when nth > 100 then 3 else 2 end
    from (select *, row_number() over (order by id) as nth from arrived) as one order by id;
    return null;
end $$;
