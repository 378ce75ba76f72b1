-- plan_paths_read: paths of the batches that the newest generations of some windows read.
-- params   $states varchar[] (Parquet), $windows varchar[] (names)
-- returns  path varchar
with
    was as (
        select unnest(kept.batches) as batch
        from states
            join read_parquet($states, filename = true, file_row_number = true) as kept
                on kept.filename = states.file and kept.file_row_number = states.row
        where states.window in (select unnest($windows))
    )
select distinct batch.path as path
from was
