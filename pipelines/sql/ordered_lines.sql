-- ordered_lines: collected lines by event time, ties by batch and row.
-- returns  what reshape_events returns
select disposition, batch, row, requested_us, {{partition_columns}} line
from ordered_lines
order by requested_us {{direction}} nulls last, batch, row
