-- pre
-- Which destination a row goes to, told in SQL, so that a claim can leave out the rows of one that is closed.

-- All of these are single expressions without a `set`, so that they are inlined, and keep their patterns small: Postgres
-- builds a pattern's automaton anew for each row, and one that says everything about a URL took 230 µs.  Ranges are the C
-- collation's, whatever the database has.

-- The host of what stands between the slashes of a URL in lower case, `host` or `host:port`; null where in doubt.  63
-- characters are as long as one label may be, so that labels need not be counted.  A name whose last label is a number is
-- an address to some resolvers: only an address in its plain form is taken.
create function job_lane_host(authority text) returns text language sql immutable parallel safe as $$
    select case
        when authority collate "C" !~ '^[a-z0-9._-]+(:[0-9]*)?$'
             or char_length(split_part(authority, ':', 1)) > 63
             or char_length(split_part(authority, ':', 2)) > 5
             or (char_length(split_part(authority, ':', 2)) = 5 and split_part(authority, ':', 2) collate "C" > '65535')
        then null
        when split_part(authority, ':', 1) collate "C" !~ '(^|\.)[.-]|-(\.|$)|(^|\.)([0-9]+|0x[0-9a-f]*)\.?$'
        then rtrim(split_part(authority, ':', 1), '.')
        when split_part(authority, ':', 1) collate "C"
             ~ '^((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(\.|$)){4}$'
             and right(split_part(authority, ':', 1), 1) <> '.'
        then split_part(authority, ':', 1)
    end
$$;

-- The lane of a row: the column where it is given, else what the handlers of the built-in kinds derive from args (for a
-- webhook the host, without its port; for e-mail the relay; for a DNS check the domain), and null for any other kind.  Null
-- too wherever SQL cannot be sure to agree with the handler, as with names that need IDNA, IPv6 addresses, long names and
-- URLs that are refused: such a row is judged by the daemon, once it is claimed.
create function job_lane(kind text, args jsonb, lane text) returns text language sql immutable parallel safe as $$
    select case
        when lane is not null then lane
        when kind = 'webhook' then case
            when split_part(lower((args ->> 'url') collate "C"), '/', 1) in ('https:', 'http:')
                 and split_part(args ->> 'url', '/', 2) = ''
                 and char_length(args ->> 'url') <= 4096 and (args ->> 'url') collate "C" !~ '[\x01-\x20\x7f]'
            then job_lane_host(split_part(split_part(split_part(
                lower(left(args ->> 'url', 99) collate "C"), '/', 3), '?', 1), '#', 1))
            end
        when kind = 'email' then case coalesce(jsonb_typeof(args -> 'relay'), 'null')
            when 'null' then 'main'
            when 'string' then case
                when char_length(args ->> 'relay') between 1 and 64 and (args ->> 'relay') collate "C" !~ '[\x01-\x1f\x7f]'
                then args ->> 'relay'
                end
            end
        when kind = 'dns_check' and jsonb_typeof(args -> 'domain') = 'string' then case
            when char_length(args ->> 'domain') <= 63
                 and lower((args ->> 'domain') collate "C") collate "C" ~ '^[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?$'
            then rtrim(lower((args ->> 'domain') collate "C"), '.')
            end
    end
$$;

comment on function job_lane(text, jsonb, text) is 'The destination of a row, or null where only its handler can tell.';
