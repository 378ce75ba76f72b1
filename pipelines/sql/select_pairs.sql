-- select_pairs: what becomes of each record: in the row of a pair, or left out for a reason.
-- params   $max_rows bigint (pairs)
-- creates  selected(ordinal, start, size, split_at, repairs, shape, line_start, line_size, reason),
--          from examples, matched and paired; a pair stands at its chosen side alone
create or replace temp table selected as
with
    ranked as (
        select
            paired.*,
            examples.lot,
            row_number() over (
                partition by paired.reason is null order by examples.lot, paired.ordinal
            ) as place
        from paired join examples on examples.ordinal = paired.ordinal
    ),
    judged as (
        select
            *,
            case when reason is null and place > $max_rows then 'over_max_rows' else reason end
                as outcome
        from ranked
    ),
    members as (
        select ordinal, true as is_chosen, start, size, repairs, shape, outcome from judged
        union all
        select matched.partner, false, null, null, null, null, judged.outcome
        from judged join matched on matched.ordinal = judged.ordinal
    )
select
    examples.ordinal,
    coalesce(members.start, examples.start) as start,
    coalesce(members.size, examples.size) as size,
    examples.split_at,
    members.repairs,
    members.shape,
    examples.line_start,
    examples.line_size,
    case
        when members.ordinal is not null then members.outcome
        when examples.input in (select input from matched) then 'duplicate'
        else 'no_pair'
    end as reason
from examples left join members on members.ordinal = examples.ordinal
where members.ordinal is null or members.is_chosen or members.outcome is not null
order by examples.ordinal
