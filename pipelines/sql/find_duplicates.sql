-- find_duplicates: every copy of a key but the first in batch order.
-- returns  batch int, row bigint
with
    repeated as (
        select key
        from event_keys
        group by key
        having count(*) > 1
    ),
    ranked as (
        select batch, row, row_number() over (partition by key order by batch, row) as place
        from event_keys
        where key in (select key from repeated)
    )
select batch, row
from ranked
where place > 1
order by batch, row
