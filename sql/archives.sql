-- What archives ask of the tables that they are made of, and of those that they are read back into.

-- name: columns
-- The columns of table $2 of schema $1 in their order, with their types as Postgres prints them; `place`: where in the
-- primary key, from 0; null: not in it.  No row: there is no such table.  index pg_attribute_relid_attnum_index
select a.attname as name, format_type(a.atttypid, a.atttypmod) as type, a.attgenerated <> '' as generated,
       array_position(i.indkey::int2[], a.attnum) as place
  from pg_attribute a left join pg_index i on i.indrelid = a.attrelid and i.indisprimary
 where a.attrelid = to_regclass(format('%I.%I', $1::text, $2::text)) and a.attnum > 0 and not a.attisdropped
 order by a.attnum;

-- name: named
-- The schema and the name of the table that $1 means in a statement: `app.users`, `app."Odd"`, `users` along the
-- search_path; null: there is none.  index pg_class_oid_index, pg_namespace_oid_index
select n.nspname as schema, c.relname as name
  from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = to_regclass($1::text);

-- name: lossless
-- Until this transaction ends values are printed so that reading them gives the same value, whatever the database's or
-- the role's own settings are.
select set_config('DateStyle', 'ISO, YMD', true), set_config('IntervalStyle', 'postgres', true),
       set_config('TimeZone', 'UTC', true), set_config('extra_float_digits', '1', true),
       set_config('bytea_output', 'hex', true), set_config('xmloption', 'content', true);
