-- plan_grid_feeds: which row groups may hold events of which window of a grid.
-- params   $origin_us bigint, $every_us bigint
-- creates  rows of feeds, one for each window and batch
insert into feeds
with
    row_groups as (
        select ordinal, first_us, last_us, windows, unnest(groups) as g
        from batches
        where first_us is not null
    ),
    spans as (
        -- A row group whose times are not known may hold any of its batch's.
        select
            ordinal,
            windows,
            g.rows as rows,
            g.bytes as bytes,
            floor_div(coalesce(g.first_us, first_us) - $origin_us, $every_us) as first_number,
            floor_div(coalesce(g.last_us, last_us) - $origin_us, $every_us) as last_number
        from row_groups
        where g.first_us is null or g.first_us <= g.last_us
    ),
    fed as (
        select unnest(range(first_number, last_number + 1)) as number, ordinal, rows, bytes
        from spans
        where windows is null
        union all
        select number, ordinal, rows, bytes
        from (
            select unnest(windows) as number, ordinal, rows, bytes, first_number, last_number
            from spans
        )
        where number between first_number and last_number
    )
select number, ordinal, sum(rows)::bigint as rows, sum(bytes)::bigint as bytes
from fed
group by number, ordinal
