-- select_pairs: of each input the newest answer that is chosen and the newest that is rejected.
-- params   $max_rows bigint (pairs)
-- creates  selected(ordinal, start, size, rejected_start, rejected_size, split_at, line_start,
--          line_size, reason), from examples; a pair stands at its chosen side
create or replace temp table selected as
with
    counted as (
        select
            *,
            row_number() over (partition by input, side order by age desc) as copy,
            count(*) filter (where side = 'chosen') over (partition by input) as chosen,
            count(*) filter (where side = 'rejected') over (partition by input) as rejected
        from examples
    ),
    judged as (
        select
            *,
            case
                when chosen = 0 or rejected = 0 then 'no_pair'
                when copy > 1 then 'duplicate'
            end as reason
        from counted
    ),
    pairs as (
        select
            c.ordinal,
            r.ordinal as rejected_ordinal,
            r.start as rejected_start,
            r.size as rejected_size,
            row_number() over (order by c.lot, c.ordinal) as place
        from judged as c join judged as r on r.input = c.input
        where c.reason is null and r.reason is null and c.side = 'chosen' and r.side = 'rejected'
    ),
    sides as (
        select ordinal, rejected_start, rejected_size, place from pairs
        union all
        select rejected_ordinal, null, null, place from pairs
    )
select
    judged.ordinal,
    judged.start,
    judged.size,
    sides.rejected_start,
    sides.rejected_size,
    judged.split_at,
    judged.line_start,
    judged.line_size,
    coalesce(judged.reason, case when sides.place > $max_rows then 'over_max_rows' end) as reason
from judged left join sides on sides.ordinal = judged.ordinal
where judged.side = 'chosen' or judged.reason is not null or sides.place > $max_rows
order by judged.ordinal
