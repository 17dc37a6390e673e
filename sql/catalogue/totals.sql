-- Rows that are deleted stay as sums: what `gone` returns is added to the row of its group, which is locked until the commit.

-- name: kept
, kept as (
    insert into {table} as known ({columns})
    select {values} from gone as r group by {group}
    on conflict ({unique}) do update set {sums}
);

-- name: row
{column};

-- name: column
r.{column};

-- name: truncated
date_trunc({unit}::text, r.{column}::timestamp)::{type};

-- name: truncated_zone
-- Days of UTC.
date_trunc({unit}::text, r.{column} at time zone 'UTC')::{type};

-- name: count
count(*);

-- name: sum
coalesce(sum(r.{column}), 0)::{type};

-- name: added
{column} = known.{column} + excluded.{column};
