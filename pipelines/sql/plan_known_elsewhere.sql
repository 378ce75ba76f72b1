-- plan_known_elsewhere: batches that a narrowed listing left out and that may hold events of a span.
-- params   $indexed varchar[] (Parquet), $start bigint, $end bigint (microseconds since 1970)
-- returns  path varchar, by path
with
    known as (
        select path
        from read_parquet($indexed)
        where first_us < $end and last_us >= $start
        union
        select path from also
    )
select path
from known
where not exists (select 1 from listed where listed.path = known.path)
order by path
