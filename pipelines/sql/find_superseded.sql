-- find_superseded: every copy of an id but the newest: the last received or updated, then the last
-- in batch order. Ids that stand once, nearly all, never reach the sort.
-- returns  batch int, row bigint
with
    repeated as (
        select id
        from event_ids
        group by id
        having count(*) > 1
    ),
    ranked as (
        select
            batch,
            row,
            row_number() over (
                partition by id order by version desc nulls last, batch desc, row desc
            ) as place
        from event_ids
        where id in (select id from repeated)
    )
select batch, row
from ranked
where place > 1
order by batch, row
