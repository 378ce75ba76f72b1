-- count_dropped: events that a rule drops before payloads are looked at, by batch and rule.
-- params   those of window_events and of the rules
-- returns  batch int, disposition int, events bigint
{{window_events}}
    dropped as (
        select batch, (case {{dispositions}} end)::integer as disposition
        from events
    )
select batch, disposition, count(*) as events
from dropped
where disposition is not null
group by all
