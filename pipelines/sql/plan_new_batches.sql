-- plan_new_batches: listed batches that the index does not know.
-- params   $indexed varchar[] (Parquet), $time_key varchar
-- returns  path varchar, etag varchar, size bigint, by path
select listed.path, listed.etag, listed.size
from listed
where not exists (
    select 1
    from read_parquet($indexed) as indexed
    where
        indexed.path = listed.path
        and indexed.etag = listed.etag
        and indexed.size = listed.size
        and indexed.time_key = $time_key
)
order by listed.rowid
