-- pre
-- Limits are leased in slices: so many tokens ahead of need, each with the time from which it may be used and the time after
-- which it is void.  So a daemon asks a few times a second, however many rows it starts, and no lateness breaks a limit.
--
-- The tokens of a bucket lie `t` seconds apart on a line (t = 1 / rate), and each may be used from its own time until
-- (burst - 1) * t later.  Whatever window of w seconds one looks at, only tokens of w + (burst - 1) * t seconds can have been
-- used in it, and these are no more than burst + rate * w: whoever used them, and however late.  `full_at` is the time of the
-- next token nobody has leased plus (burst - 1) * t, as GCRA has it.
alter table job_limits
    add column lot        bigint      not null default 0,    -- counts the lots of a bucket that lends one lot at a time
    add column lot_until  timestamptz,                       -- until when the last one may be used; null: it is settled
    add column lot_before timestamptz not null default 'epoch', -- full_at before it
    add column spare_s    float8[]    not null default '{}', -- tokens that came back: time of the first (seconds since 1970)
    add column spare_n    int[]       not null default '{}'; -- and how many from there on, `t` apart
alter table job_limit_holds
    add column asked_at    timestamptz not null default now(),
    add column wants_until timestamptz not null default 'epoch'; -- it asked in vain: others take no more than their share

drop function job_limits_take(bigint, text[], text[], int[], float8[], int[], int[]);
drop function job_limits_give(bigint, text[], text[], int[], float8[]);

-- Lease tokens and places of several buckets.  Exact over all daemons: the buckets' rows are locked in order of (name, key),
-- so that two calls cannot deadlock, and only for the length of this call.  For each bucket: tokens and places wanted, the
-- seconds one token takes to grow (null: no rate), the burst, how many places there are (null: no limit); tokens that grow
-- within `ahead_s` from now are leased too.  A token comes only with its place.
-- Returns, by its number n, for each: places; how many other workers want some; now, in seconds since 1970; tokens as the
-- time of the first and how many from there on; until how much later each may be used; the lot they are of, to be settled
-- (null: nothing to settle); seconds until it is worth asking again (null: nothing was refused for want of tokens).
create function job_limits_lease(worker bigint, names text[], keys text[], want_tokens int[], want_places int[],
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
            next_s := least(next_s, at_s + ahead_max_s + t);
            got := least(room, greatest(floor((at_s + ahead_s + grain_s - next_s) / t)::int + 1, 0));
            if got > 0 then
                froms := froms || next_s; counts := counts || got;
                room := room - got; next_s := next_s + got * t;
            end if;
            if room > 0 then
                retry_s := greatest(next_s - ahead_s - at_s, 0);
            end if;
            if cardinality(froms) > 0 or keep_s <> bucket.spare_s then
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

-- Give back places, and tokens nobody used; and settle lots.  For each: places; seconds a token takes and burst; the time of
-- the first token that comes back and how many from there on; or the lot, how many of it were used and when the last was
-- (in seconds since 1970, rather too late than too early).
create function job_limits_return(worker bigint, names text[], keys text[], places_back int[], token_s float8[],
                                  bursts int[], froms float8[], counts int[], lots bigint[], used int[], last_s float8[])
returns void language plpgsql set search_path from current as $$
declare
    n int;
    bucket job_limits%rowtype;
    next_s float8;
begin
    for n in select i from generate_subscripts(names, 1) as i order by names[i], keys[i], froms[i] desc nulls last loop
        select * into bucket from job_limits as b where b.name = names[n] and b.key = keys[n] for update;
        continue when not found;
        if places_back[n] > 0 then
            update job_limit_holds as h set held = greatest(h.held - places_back[n], 0)
            where h.name = names[n] and h.key = keys[n] and h.worker_id = worker;
        end if;
        if lots[n] is not null then
            if bucket.lot = lots[n] and bucket.lot_until is not null then
                update job_limits as b
                set lot_until = null,
                    full_at = case when used[n] = 0 then bucket.lot_before
                                   else greatest(bucket.lot_before, least(to_timestamp(last_s[n]), bucket.lot_until))
                                        + used[n] * token_s[n] * interval '1 second' end
                where b.name = names[n] and b.key = keys[n];
            end if;
        elsif counts[n] > 0 then
            next_s := date_part('epoch', bucket.full_at) - (bursts[n] - 1) * token_s[n];
            if abs(froms[n] + counts[n] * token_s[n] - next_s) < least(token_s[n] / 100, 0.0001) then
                -- they are the last ones: as if they had never been leased
                update job_limits as b set full_at = b.full_at - counts[n] * token_s[n] * interval '1 second'
                where b.name = names[n] and b.key = keys[n];
            elsif cardinality(bucket.spare_s) < 16 then
                update job_limits as b set spare_s = b.spare_s || froms[n], spare_n = b.spare_n || counts[n]
                where b.name = names[n] and b.key = keys[n];
            end if; -- else they are lost: that only slows
        end if;
    end loop;
end $$;

comment on table job_limits is 'The buckets of the limits: what of each is leased to daemons.';
comment on table job_limit_holds is 'How many places of a limit each worker holds, and which want some.';
