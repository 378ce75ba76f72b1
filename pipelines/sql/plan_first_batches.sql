-- plan_first_batches: listed batches up to the first one that the index knows.
-- returns  path varchar, etag varchar, size bigint, columns varchar (null where not known), by path
with
    known as (
        select path, etag, size, any_value(columns) as columns
        from indexed
        group by path, etag, size
    ),
    first_known as (
        select listed.path, known.columns
        from listed join known
            on known.path = listed.path and known.etag = listed.etag and known.size = listed.size
        order by listed.path
        limit 1
    )
select listed.path, listed.etag, listed.size, first_known.columns
from listed left join first_known on first_known.path = listed.path
where listed.path <= coalesce((select path from first_known), listed.path)
order by listed.path
