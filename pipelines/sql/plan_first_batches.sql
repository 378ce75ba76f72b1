-- plan_first_batches: listed batches up to the first one that the index knows.
-- returns  path varchar, etag varchar, size bigint, columns varchar (null where not known), by path
with
    first_known as (
        select min(listed.path) as path
        from listed semi join indexed
            on
                indexed.path = listed.path
                and indexed.etag = listed.etag
                and indexed.size = listed.size
    ),
    candidates as (
        select listed.path, listed.etag, listed.size
        from listed, first_known
        where first_known.path is null or listed.path <= first_known.path
    ),
    known as (
        select indexed.path, indexed.etag, any_value(indexed.columns) as columns
        from indexed semi join first_known on first_known.path = indexed.path
        group by indexed.path, indexed.etag
    )
select candidates.path, candidates.etag, candidates.size, known.columns
from candidates left join known
    on known.path = candidates.path and known.etag = candidates.etag
order by candidates.path
