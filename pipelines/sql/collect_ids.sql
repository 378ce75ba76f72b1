-- collect_ids: ids of the window's events, for find_superseded.
-- params   those of window_events
-- returns  id varchar, version timestamp, batch int, row bigint
{{window_events}}
    identified as (
        select id, greatest(received_at, updated_at) as version, batch, row
        from events
        where id is not null
    )
select id, version, batch, row
from identified
