-- pre
-- A limit that is raised counts at once, whatever the bucket owes by the lower one.

-- As before, and: a bucket that is emptier than empty is written down as empty.  It was only reckoned so, anew at each question, so
-- that the first token was always a moment away, until the time was over that the lower rate had asked for.
create or replace function job_limits_lease(worker bigint, names text[], keys text[], want_tokens int[], want_places int[],
                                 token_s float8[], bursts int[], places int[], ahead_s float8)
returns table (n int, places_got int, rivals int, at_s float8, froms float8[], counts int[], late_s float8, lot bigint,
               retry_s float8)
language plpgsql set search_path from current as $$
#variable_conflict use_variable
declare
    ahead_max_s constant float8 := 0.1;
    grain_s constant float8 := 0.000001; -- of timestamps: a token is no less due for it
    bucket job_limits%rowtype;
    t float8;
    next_s float8;      -- the time of the next token
    room int;
    taken int;
    own int;
    keep_s float8[];
    keep_n int[];
    got int;
    base_s float8;
    start_s float8;
    too_empty boolean;
begin
    for n in select i from generate_subscripts(names, 1) as i order by names[i], keys[i] loop
        loop
            select * into bucket from job_limits as b where b.name = names[n] and b.key = keys[n] for update;
            exit when found;
            insert into job_limits (name, key) values (names[n], keys[n]) on conflict do nothing;
        end loop;
        at_s := date_part('epoch', clock_timestamp()); -- read once, under the lock: a moment lost slows the bucket
        places_got := 0; rivals := 0; froms := '{}'; counts := '{}'; late_s := 0; lot := null; retry_s := null;
        room := want_tokens[n];

        if places[n] is not null and want_places[n] > 0 then
            select coalesce(sum(h.held), 0), coalesce(sum(h.held) filter (where h.worker_id = worker), 0),
                   count(*) filter (where h.worker_id <> worker and h.wants_until > to_timestamp(at_s))
            into taken, own, rivals
            from job_limit_holds as h where h.name = names[n] and h.key = keys[n];
            places_got := greatest(least(want_places[n], places[n] - taken), 0);
            if rivals > 0 then -- somebody else asked in vain: nobody gets more than a share
                places_got := greatest(least(places_got, ceil(places[n] / (rivals + 1.0))::int - own), 0);
            end if;
            insert into job_limit_holds as h (name, key, worker_id, held, asked_at, wants_until)
            values (names[n], keys[n], worker, places_got, to_timestamp(at_s),
                    to_timestamp(case when places_got < want_places[n] then at_s + 0.25 else 0 end))
            on conflict (name, key, worker_id) do update
            set held = h.held + excluded.held, asked_at = excluded.asked_at, wants_until = excluded.wants_until;
            room := room - (want_places[n] - places_got);
        end if;

        if token_s[n] is null or room <= 0 then
            return next;
            continue;
        end if;
        t := token_s[n];
        late_s := (bursts[n] - 1) * t;
        if late_s >= 0.05 then
            -- first what came back from others, as long as it is good for
            keep_s := '{}'; keep_n := '{}';
            for i in 1 .. cardinality(bucket.spare_s) loop
                next_s := bucket.spare_s[i];
                got := bucket.spare_n[i];
                taken := least(got, greatest(ceil((at_s - late_s + least(late_s / 4, 0.05) - next_s) / t)::int, 0));
                next_s := next_s + taken * t; -- those are void by now, or would be on their way
                got := got - taken;
                taken := least(got, room, greatest(floor((at_s + ahead_s + grain_s - next_s) / t)::int + 1, 0));
                if taken > 0 then
                    froms := froms || next_s; counts := counts || taken;
                    room := room - taken; got := got - taken; next_s := next_s + taken * t;
                end if;
                if got > 0 then
                    keep_s := keep_s || next_s; keep_n := keep_n || got;
                end if;
            end loop;
            -- a bucket that was full for long keeps some of its burst for what is late on the way
            next_s := greatest(date_part('epoch', bucket.full_at) - late_s,
                               at_s - late_s + least(late_s / 2, 2.5 * ahead_s));
            -- and is never emptier than empty, whatever an earlier config or clock made of it
            too_empty := next_s > at_s + ahead_max_s + t;
            next_s := least(next_s, at_s + ahead_max_s + t);
            got := least(room, greatest(floor((at_s + ahead_s + grain_s - next_s) / t)::int + 1, 0));
            if got > 0 then
                froms := froms || next_s; counts := counts || got;
                room := room - got; next_s := next_s + got * t;
            end if;
            if room > 0 then
                retry_s := greatest(next_s - ahead_s - at_s, 0);
            end if;
            if cardinality(froms) > 0 or keep_s <> bucket.spare_s or too_empty then
                update job_limits as b set full_at = to_timestamp(next_s + late_s), spare_s = keep_s, spare_n = keep_n
                where b.name = names[n] and b.key = keys[n];
            end if;
        elsif bucket.lot_until > to_timestamp(at_s) then
            -- The burst leaves no time to be late in: one lot at a time, and its holder tells at once when it was used.
            -- Ask again at about the time at which it may.
            retry_s := greatest(date_part('epoch', bucket.lot_until) - least(greatest(bursts[n] * t, 0.1), 1.0) - at_s, 0)
                       + 0.01;
        else
            late_s := least(greatest(bursts[n] * t, 0.1), 1.0);
            base_s := least(date_part('epoch', bucket.full_at), at_s + ahead_max_s + late_s + bursts[n] * t);
            start_s := greatest(at_s, base_s + t - bursts[n] * t);
            if start_s > at_s + ahead_s + grain_s then
                retry_s := start_s - ahead_s - at_s;
                update job_limits as b set full_at = to_timestamp(base_s)
                where b.name = names[n] and b.key = keys[n] and b.full_at > to_timestamp(base_s);
            else
                got := least(room, floor(bursts[n] - greatest(base_s - start_s, 0) / t + 1e-6)::int);
                froms := array[start_s]; counts := array[got]; lot := bucket.lot + 1;
                update job_limits as b
                set full_at = to_timestamp(greatest(base_s, start_s + late_s) + got * t), lot = bucket.lot + 1,
                    lot_until = to_timestamp(start_s + late_s), lot_before = to_timestamp(base_s)
                where b.name = names[n] and b.key = keys[n];
                if room > got then
                    retry_s := greatest(start_s - at_s, 0) + 0.01;
                end if;
            end if;
        end if;
        return next;
    end loop;
end $$;
