-- plan_first_batches: some of the listed batches, with their columns where the index knows them.
-- params   $indexed varchar[] (Parquet), $first bigint, $stop bigint (their places in the listing)
-- returns  path varchar, etag varchar, size bigint, columns varchar (null where not known), by path
select
    listed.path,
    listed.etag,
    listed.size,
    any_value(indexed.columns) as columns
from listed left join read_parquet($indexed) as indexed
    on
        indexed.path = listed.path
        and indexed.etag = listed.etag
        and indexed.size = listed.size
where listed.rowid >= $first and listed.rowid < $stop
group by listed.rowid, listed.path, listed.etag, listed.size
order by listed.rowid
