-- plan_batch_rows: some of the batches. All at once, sorted, would not fit into memory.
-- params   $first bigint, $stop bigint (ordinals)
-- returns  as `batches` without ordinal, by ordinal
select path, etag, size, rows, contract, groups, first_us, last_us, undated, windows
from batches
where ordinal >= $first and ordinal < $stop
order by ordinal
