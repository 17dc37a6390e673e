-- pre
-- How many domains are in each state is asked every two minutes, and answered without reading the table.
create index domains_state on domains (state);
