-- count_events: events of the window by batch, counted apart from all that is done with them.
-- params   those of window_events
-- returns  batch int, events bigint
{{window_events}}
    counted as (
        select batch, count(*) as events
        from events
        group by batch
    )
select batch, events
from counted
