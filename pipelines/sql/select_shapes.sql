-- select_shapes: the first example of each shape in each split, of those that stay.
-- params   $ends double[] (of the splits among the places in [0, 1)), $most bigint
-- returns  start bigint, size bigint, split_at double, in order
with
    counted as (
        select
            *,
            row_number() over (
                partition by shape, len(list_filter($ends, lambda e: e <= split_at))
                order by ordinal
            ) as nth
        from selected
        where reason is null
    )
select start, size, split_at
from counted
where nth = 1
order by ordinal
limit $most
