-- pre
-- Take tokens and places from several buckets in one short transaction.  Exact over all daemons: the rows of the buckets are
-- locked in order of (name, key), so that two calls cannot deadlock, and only for the length of this call.

-- For each bucket: `wanted` tokens, the seconds one token takes to grow (null: no rate), the tokens it can hold, and how
-- many may be held at once (null: no limit).  Returns, in the order given, what was granted and the seconds until the next
-- token (null when nothing was refused, or when a place must come free first).
create function job_limits_take(worker bigint, names text[], keys text[], wanted int[], token_s float8[], bursts int[],
                                places int[])
returns table (granted int, retry_s float8) language plpgsql set search_path from current as $$
#variable_conflict use_column
declare
    n int;
    full_at_n timestamptz;
    at timestamptz;
    debt_s float8;      -- seconds until the bucket is full again: how far GCRA's theoretical arrival time lies ahead
    grown int;
    got int;
    answer_got int[] := array_fill(0, array[cardinality(names)]);
    answer_s float8[] := array_fill(null::float8, array[cardinality(names)]);
begin
    for n in select i from generate_subscripts(names, 1) as i order by names[i], keys[i] loop
        insert into job_limits (name, key) values (names[n], keys[n]) on conflict do nothing;
        select full_at into full_at_n from job_limits where name = names[n] and key = keys[n] for update;
        at := clock_timestamp(); -- read once, under the lock: a moment lost between two readings slows the bucket
        got := wanted[n];
        if places[n] is not null then
            got := least(got, greatest(places[n] - (
                select coalesce(sum(held), 0) from job_limit_holds where name = names[n] and key = keys[n]), 0));
        end if;
        if token_s[n] is not null then
            -- a bucket is never emptier than empty, whatever an earlier config or clock made of it
            debt_s := least(greatest(date_part('epoch', full_at_n - at), 0), bursts[n] * token_s[n]);
            grown := floor(bursts[n] - debt_s / token_s[n] + 1e-9);
            if grown < got then
                got := grown;
                answer_s[n] := greatest(debt_s + (grown + 1 - bursts[n]) * token_s[n], 0);
            end if;
            if got > 0 then
                update job_limits set full_at = at + (debt_s + got * token_s[n]) * interval '1 second'
                where name = names[n] and key = keys[n];
            end if;
        end if;
        if places[n] is not null and got > 0 then
            insert into job_limit_holds (name, key, worker_id, held) values (names[n], keys[n], worker, got)
            on conflict (name, key, worker_id) do update set held = job_limit_holds.held + excluded.held;
        end if;
        answer_got[n] := got;
    end loop;
    return query select * from unnest(answer_got, answer_s);
end $$;

-- Give back places, and tokens that were taken but not used, counted in the seconds they took to grow.
create function job_limits_give(worker bigint, names text[], keys text[], held_back int[], tokens_s float8[])
returns void language plpgsql set search_path from current as $$
declare
    n int;
begin
    for n in select i from generate_subscripts(names, 1) as i order by names[i], keys[i] loop
        perform from job_limits where name = names[n] and key = keys[n] for update;
        if tokens_s[n] > 0 then
            update job_limits set full_at = full_at - tokens_s[n] * interval '1 second'
            where name = names[n] and key = keys[n];
        end if;
        if held_back[n] > 0 then
            update job_limit_holds set held = greatest(held - held_back[n], 0)
            where name = names[n] and key = keys[n] and worker_id = worker;
        end if;
    end loop;
end $$;
