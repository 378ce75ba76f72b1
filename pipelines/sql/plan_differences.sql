-- plan_differences: how the inputs of committed windows differ from those of their manifests.
-- Also batches that no longer overlap the window, or are no longer readable, can have changed.
-- params   $states varchar[] (Parquet)
-- returns  number bigint, late bigint, first_late, changed bigint, first_changed, gone bigint,
--          first_gone, lost bigint (events of batches that are gone)
with
    was as (
        select stale.number, unnest(kept.batches) as batch
        from stale
            join states on states.window = stale.window
            join read_parquet($states, filename = true, file_row_number = true) as kept
                on kept.filename = states.file and kept.file_row_number = states.row
    ),
    compared as (
        select
            was.number,
            was.batch.path as path,
            case
                when batches.path is null and unreadable.path is null then 'gone'
                when batches.path is null and unreadable.etag is distinct from was.batch.etag then 'gone'
                when batches.etag is distinct from was.batch.etag then 'changed'
            end as how,
            was.batch.read as read
        from was
            left join batches on batches.path = was.batch.path
            left join unreadable on unreadable.path = was.batch.path
    ),
    late as (
        select feeds.number, batches.path as path, 'late' as how, 0 as read
        from feeds
            join stale on stale.number = feeds.number
            join batches on batches.ordinal = feeds.ordinal
        where not exists (
            select 1 from was where was.number = feeds.number and was.batch.path = batches.path
        )
    ),
    differences as (
        select * from compared where how is not null
        union all
        select * from late
    )
select
    number,
    count(*) filter (how = 'late') as late,
    min(path) filter (how = 'late') as first_late,
    count(*) filter (how = 'changed') as changed,
    min(path) filter (how = 'changed') as first_changed,
    count(*) filter (how = 'gone') as gone,
    min(path) filter (how = 'gone') as first_gone,
    coalesce(sum(read) filter (how = 'gone'), 0)::bigint as lost
from differences
group by number
