-- condition: the config's `where` on its own, to learn its type; never read.
-- params   those of window_events
-- returns  condition
{{window_events}}
    judged as (
        select {{where}} as condition
        from events
    )
select condition
from judged
