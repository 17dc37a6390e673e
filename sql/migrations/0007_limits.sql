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
    full_s float8;      -- seconds from now until the bucket would be full of debt: GCRA's theoretical arrival time
    got int;
    held_now int;
    answer_got int[] := array_fill(0, array[cardinality(names)]);
    answer_s float8[] := array_fill(null::float8, array[cardinality(names)]);
begin
    for n in select i from generate_subscripts(names, 1) as i order by names[i], keys[i] loop
        insert into job_limits (name, key) values (names[n], keys[n]) on conflict do nothing;
        select greatest(date_part('epoch', full_at - clock_timestamp()), 0) into full_s
        from job_limits where name = names[n] and key = keys[n] for update;
        got := wanted[n];
        if places[n] is not null then
            select coalesce(sum(held), 0) into held_now from job_limit_holds where name = names[n] and key = keys[n];
            got := least(got, greatest(places[n] - held_now, 0));
        end if;
        if token_s[n] is not null then
            -- full_at may be at most (burst - 1) tokens ahead of now before one more is taken
            full_s := case when full_s > 1e9 then 0 else full_s end;
            if floor((bursts[n] * token_s[n] - full_s) / token_s[n] + 1e-9) < got then
                got := greatest(floor((bursts[n] * token_s[n] - full_s) / token_s[n] + 1e-9), 0);
                answer_s[n] := greatest(full_s + got * token_s[n] - (bursts[n] - 1) * token_s[n], 0);
            end if;
            if got > 0 then
                update job_limits
                set full_at = clock_timestamp() + (full_s + got * token_s[n]) * interval '1 second'
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

-- Give back places, and tokens that were taken but not used.
create function job_limits_give(worker bigint, names text[], keys text[], held_back int[], tokens float8[])
returns void language plpgsql set search_path from current as $$
declare
    n int;
begin
    for n in select i from generate_subscripts(names, 1) as i order by names[i], keys[i] loop
        perform from job_limits where name = names[n] and key = keys[n] for update;
        if tokens[n] > 0 then
            update job_limits set full_at = full_at - tokens[n] * interval '1 second'
            where name = names[n] and key = keys[n];
        end if;
        if held_back[n] > 0 then
            update job_limit_holds set held = greatest(held - held_back[n], 0)
            where name = names[n] and key = keys[n] and worker_id = worker;
        end if;
    end loop;
end $$;
