-- Conditions on columns that the config names.  {column} and {type} are as Postgres quotes them, {value} is a parameter that
-- is text, cast where it is compared.  One value is compared with =, so that a partial index with that condition is used.

-- name: readable
-- Whether the texts $1 are values of a type.
select $1::text[]::{type}[];

-- name: equal
and {column} = {value}::text::{type};

-- name: any
and {column} = any ({value}::text[]::{type}[]);

-- name: none
-- A null is none of them.
and ({column} = any ({value}::text[]::{type}[])) is not true;

-- name: null
and {column} is null;

-- name: not_null
and {column} is not null;

-- name: above
and {column} > {value}::text::{type};

-- name: at_least
and {column} >= {value}::text::{type};

-- name: below
and {column} < {value}::text::{type};

-- name: at_most
and {column} <= {value}::text::{type};

-- name: older_than
-- {now}: what the run takes for now; {value}: seconds, as text.
and {column} < {now}::timestamptz - {value}::text::float8 * interval '1 second';
