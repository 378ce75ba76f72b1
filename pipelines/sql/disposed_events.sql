-- disposed_events: those events with their payloads checked and a disposition, a number of Rules.
-- params   those of window_events and of the rules
-- returns  disposed(window_events' columns, request_json, response_json, disposition)
{{window_events}}
    checked as (
        select *, {{request_json}} as request_json, {{response_json}} as response_json
        from events
        where {{kept}}
    ),
    disposed as (
        select *, (case {{dispositions}} else 0 end)::integer as disposition
        from checked
    )
