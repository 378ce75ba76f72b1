-- reshape_events: one line an event, a record or a reject, with its disposition and partition.
-- params   those of disposed_events, $paths varchar[] (the batches' own paths),
--          $first_reject int (the smallest disposition that is a reject)
-- returns  disposition int, batch int, row bigint, requested_us bigint, p0 … pn varchar, line varchar
{{disposed_events}}
select
    disposition,
    batch,
    row,
    epoch_us(requested_at) as requested_us,
    {{partition_values}}
    case
        when disposition = 0 then {{record}}
        when disposition >= $first_reject then concat(
            to_json({
                'reason': {{reason}},
                'detail': {{detail}},
                'batch': $paths[1 + batch - $first_batch],
                'row': row,
                'id': id,
                'raw': {{raw}}
            })::varchar,
            chr(10)
        )
    end as line
from disposed
