-- pre
-- Limits for relays: so many a day, and a rate that is slowed for a while when the other side says that it is too much.

alter table job_limits
    add column share     float8      not null default 1,     -- of the rate, at slowed_at; from there on it grows again
    add column slowed_at timestamptz,
    add column day_at    float8[]    not null default '{}',  -- of so many a day: quarters of an hour (seconds since 1970)
    add column day_n     int[]       not null default '{}';  -- and how many were lent in each

-- The part of its rate that a bucket lends by now: a tenth of the whole more each minute.
create function job_limit_share(share float8, slowed_at timestamptz, at timestamptz) returns float8
language sql immutable set search_path from current as $$
    select coalesce(least(1.0, share + 0.1 / 60 * greatest(date_part('epoch', at - slowed_at), 0)), 1.0)
$$;

drop function job_limits_lease(bigint, text[], text[], int[], int[], float8[], int[], int[], float8);
drop function job_limits_return(bigint, text[], text[], int[], float8[], int[], float8[], int[], bigint[], int[], float8[]);

-- As before; and `days`: not null, the bucket holds `burst` a day instead, a day that begins so many seconds after midnight UTC
-- (-1: any 24 hours), whatever `token_s` says.  Returns further how far apart the tokens are (0: all at once), which part of its
-- rate the bucket lends, and of a day how many are lent by now; then `lot` is the slot they are counted in.
create function job_limits_lease(worker bigint, names text[], keys text[], want_tokens int[], want_places int[],
                                 token_s float8[], bursts int[], places int[], days int[], ahead_s float8)
returns table (n int, places_got int, rivals int, at_s float8, froms float8[], counts int[], late_s float8, lot bigint,
               retry_s float8, step_s float8, share float8, used int)
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
    day_s constant float8 := 86400;
    slot_s constant float8 := 900;
    since_s float8;     -- slots of a day that began later count
begin
    for n in select i from generate_subscripts(names, 1) as i order by names[i], keys[i] loop
        loop
            select * into bucket from job_limits as b where b.name = names[n] and b.key = keys[n] for update;
            exit when found;
            insert into job_limits (name, key) values (names[n], keys[n]) on conflict do nothing;
        end loop;
        at_s := date_part('epoch', clock_timestamp()); -- read once, under the lock: a moment lost slows the bucket
        places_got := 0; rivals := 0; froms := '{}'; counts := '{}'; late_s := 0; lot := null; retry_s := null;
        step_s := 0; share := 1; used := null;
        if bucket.slowed_at is not null then
            share := job_limit_share(bucket.share, bucket.slowed_at, to_timestamp(at_s));
        end if;
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

        if days[n] is not null and room > 0 then
            -- So many a day: each is counted in the quarter of an hour in which its time ends, as long as that matters.  A day
            -- that begins at a time of its own ends there for what is lent, too.
            late_s := 1;
            since_s := at_s - day_s - slot_s;
            base_s := floor((at_s - days[n]) / day_s) * day_s + days[n];
            if days[n] >= 0 then
                since_s := base_s - 1;
                late_s := least(late_s, base_s + day_s - at_s - 0.001);
            end if;
            start_s := floor((at_s + late_s) / slot_s) * slot_s;
            keep_s := '{}'; keep_n := '{}'; used := 0;
            for i in 1 .. cardinality(bucket.day_at) loop
                if bucket.day_at[i] > at_s - day_s - slot_s and bucket.day_n[i] > 0 and bucket.day_at[i] <> start_s then
                    keep_s := keep_s || bucket.day_at[i]; keep_n := keep_n || bucket.day_n[i];
                end if;
                if bucket.day_at[i] > since_s then
                    used := used + bucket.day_n[i];
                end if;
            end loop;
            got := case when late_s < 0.05 then 0 else greatest(least(room, bursts[n] - used), 0) end;
            if got > 0 then
                froms := array[at_s]; counts := array[got]; lot := (start_s / slot_s)::bigint; used := used + got;
                taken := coalesce(bucket.day_n[array_position(bucket.day_at, start_s)], 0);
                update job_limits as b
                set day_at = keep_s || start_s, day_n = keep_n || taken + got,
                    full_at = to_timestamp(case when days[n] < 0 then start_s + slot_s else base_s end + day_s)
                where b.name = names[n] and b.key = keys[n];
            end if;
            if got < room then -- others may give some back, so it is worth asking again soon
                retry_s := least(case when days[n] >= 0 then base_s + day_s - at_s + 0.001 else
                                 coalesce((select min(s) from unnest(keep_s) as s), at_s) + slot_s + day_s - at_s end, 2);
            end if;
            return next;
            continue;
        end if;

        if token_s[n] is null or room <= 0 then
            return next;
            continue;
        end if;
        t := token_s[n] / share; -- slowed: further apart, and each in its time as before, so what the limit says holds as well
        step_s := t;
        late_s := (bursts[n] - 1) * token_s[n];
        if late_s >= 0.05 then
            -- first what came back from others, as long as it is good for; it would come too close to what is slowed
            keep_s := '{}'; keep_n := '{}';
            for i in 1 .. case when share < 1 then 0 else cardinality(bucket.spare_s) end loop
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
            step_s := 0;
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

-- As before; of tokens also how far apart they were lent, of a day's the slot, as `lot`.
create function job_limits_return(worker bigint, names text[], keys text[], places_back int[], token_s float8[],
                                  bursts int[], days int[], steps float8[], froms float8[], counts int[], lots bigint[],
                                  used int[], last_s float8[])
returns void language plpgsql set search_path from current as $$
declare
    n int;
    bucket job_limits%rowtype;
    next_s float8;
    slot int;
    part float8;
begin
    for n in select i from generate_subscripts(names, 1) as i order by names[i], keys[i], froms[i] desc nulls last loop
        select * into bucket from job_limits as b where b.name = names[n] and b.key = keys[n] for update;
        continue when not found;
        if places_back[n] > 0 then
            update job_limit_holds as h set held = greatest(h.held - places_back[n], 0)
            where h.name = names[n] and h.key = keys[n] and h.worker_id = worker;
        end if;
        if days[n] is not null then
            slot := array_position(bucket.day_at, lots[n] * 900::float8);
            if slot is not null then
                update job_limits as b set day_n[slot] = greatest(b.day_n[slot] - counts[n], 0)
                where b.name = names[n] and b.key = keys[n];
            end if;
        elsif lots[n] is not null then
            part := job_limit_share(bucket.share, bucket.slowed_at, clock_timestamp());
            if bucket.lot = lots[n] and bucket.lot_until is not null then
                update job_limits as b
                set lot_until = null,
                    full_at = case when used[n] = 0 then bucket.lot_before
                                   else greatest(bucket.lot_before, least(to_timestamp(last_s[n]), bucket.lot_until))
                                        + used[n] * token_s[n] / part * interval '1 second' end
                where b.name = names[n] and b.key = keys[n];
            end if;
        elsif counts[n] > 0 then
            next_s := date_part('epoch', bucket.full_at) - (bursts[n] - 1) * token_s[n];
            if abs(froms[n] + counts[n] * steps[n] - next_s) < least(token_s[n] / 100, 0.0001) then
                -- they are the last ones: as if they had never been leased
                update job_limits as b set full_at = b.full_at - counts[n] * steps[n] * interval '1 second'
                where b.name = names[n] and b.key = keys[n];
            elsif cardinality(bucket.spare_s) < 16 and steps[n] = token_s[n] then -- slowed ones would come too close
                update job_limits as b set spare_s = b.spare_s || froms[n], spare_n = b.spare_n || counts[n]
                where b.name = names[n] and b.key = keys[n];
            end if; -- else they are lost: that only slows
        end if;
    end loop;
end $$;
