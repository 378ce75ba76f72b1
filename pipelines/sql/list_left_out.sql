-- list_left_out: the examples that do not stay and whose records were put down.
-- returns  reason varchar, line_start bigint, line_size bigint, in order; from selected
select reason, line_start, line_size
from selected
where reason is not null and line_start is not null
order by ordinal
