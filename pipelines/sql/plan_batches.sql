-- plan_batches: the listed batches that the index knows, numbered by path.
-- params   $time_key varchar
-- creates  batches(ordinal int, path, etag, size, rows, columns, groups, first_us, last_us, undated,
--          windows)
create temp table batches as
with
    numbered as (
        -- Before the join, which makes rows wide; numbers are places in the table, without gaps.
        select
            listed.path,
            listed.etag,
            listed.size,
            (row_number() over (order by listed.path) - 1)::integer as ordinal
        from listed
        where exists (
            select 1
            from indexed
            where
                indexed.path = listed.path
                and indexed.etag = listed.etag
                and indexed.size = listed.size
                and indexed.time_key = $time_key
        )
    )
select
    numbered.ordinal,
    numbered.path,
    numbered.etag,
    numbered.size,
    indexed.rows,
    indexed.columns,
    indexed.groups,
    indexed.first_us,
    indexed.last_us,
    indexed.undated,
    indexed.windows
from numbered join indexed
    on
        indexed.path = numbered.path
        and indexed.etag = numbered.etag
        and indexed.size = numbered.size
where indexed.time_key = $time_key
