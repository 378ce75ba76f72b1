-- plan_inputs: the inputs of each window, in numbers and as one digest.
-- returns  number bigint, batches bigint, rows bigint, bytes bigint, digest varchar
select
    feeds.number,
    count(*) as batches,
    sum(feeds.rows)::bigint as rows,
    sum(feeds.bytes)::bigint as bytes,
    sha256(
        string_agg(
            concat(batches.path, chr(0), batches.etag, chr(0), batches.size, chr(10)), ''
            order by batches.ordinal
        )
    ) as digest
from feeds join batches on batches.ordinal = feeds.ordinal
group by feeds.number
order by feeds.number
