-- list_kept: the examples that stay.
-- returns  start bigint, size bigint, split_at double, in order; from selected
select start, size, split_at
from selected
where reason is null
order by ordinal
