-- plan_batches: the listed batches, all of which the index knows, numbered by path without gaps.
-- params   $indexed varchar[] (Parquet), $time_key varchar
-- creates  batches(ordinal int, path, etag, size, rows, contract, groups, first_us, last_us,
--          undated, windows), in any order
create temp table batches as
select
    listed.rowid::integer as ordinal,
    listed.path,
    listed.etag,
    listed.size,
    indexed.rows,
    contracts.contract,
    indexed.groups,
    indexed.first_us,
    indexed.last_us,
    indexed.undated,
    indexed.windows
from listed
    join read_parquet($indexed) as indexed
        on
            indexed.path = listed.path
            and indexed.etag = listed.etag
            and indexed.size = listed.size
    join contracts on contracts.columns = indexed.columns
where indexed.time_key = $time_key
