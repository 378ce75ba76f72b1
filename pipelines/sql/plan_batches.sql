-- plan_batches: the listed batches that the index knows, numbered by path.
-- params   $time_key varchar
-- creates  batches(ordinal int, path, etag, size, rows, columns, groups, first_us, last_us, undated)
create temp table batches as
with
    known as (
        -- Runs side by side may have indexed a batch twice, with equal rows.
        select distinct on (path, etag, size) *
        from indexed
        where time_key = $time_key
    )
select
    (row_number() over (order by listed.path) - 1)::integer as ordinal,
    listed.path,
    listed.etag,
    listed.size,
    known.rows,
    known.columns,
    known.groups,
    known.first_us,
    known.last_us,
    known.undated
from listed join known
    on known.path = listed.path and known.etag = listed.etag and known.size = listed.size
