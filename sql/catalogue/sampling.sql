-- What a rehearsal asks.  It may read much of a table, and the server's statement_timeout ends it; nothing is locked.

-- name: count
select count(*)::int from (
    select from {table} as t {joins} where {condition} limit {most}::int
) as found;

-- name: sample
select row_to_json(found)::text from (
    select {shown} from {table} as t {joins} where {condition} order by {order} limit {most}::int
) as found;
