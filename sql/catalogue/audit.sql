-- What was done, written down by the statement that did it: one row for each row of {source}, or one for all of them.

-- name: each
, noted as (
    insert into {table} ({columns}) select {values} from {source} as r
);

-- name: once
, noted as (
    insert into {table} ({columns})
    select {values} from (select count(*) as rows from {source}) as r where r.rows > 0
);

-- name: text
{value}::text;

-- name: rows
r.rows::text;

-- name: column
r.{column}::text;

-- name: json
coalesce(to_json(r.{column})::text, 'null');

-- name: concatenated
-- A null is an empty text among others.
concat({parts});

-- name: cast
({text})::{type};
