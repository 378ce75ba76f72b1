-- select_examples: what becomes of each example: kept, or the reason why it is left out.
-- params   $newest boolean (of examples with one input the last stays, otherwise the first),
--          $distinct boolean (examples with one input are duplicates), $longest boolean (what a
--          longer conversation repeats is left out), $max_rows bigint
-- creates  selected(ordinal, start, size, split_at, reason), from examples and prefixes
create or replace temp table selected as
with
    numbered as (
        select
            *,
            row_number() over (
                partition by input
                order by case when $newest then -ordinal else ordinal end
            ) as copy
        from examples
    ),
    judged as (
        select
            *,
            case
                when $distinct and copy > 1 then 'duplicate'
                when $longest and conversation in (select hash from prefixes) then 'covered_by_longer'
            end as reason
        from numbered
    ),
    ranked as (
        select *, row_number() over (partition by reason is null order by lot, ordinal) as place
        from judged
    )
select
    ordinal,
    start,
    size,
    split_at,
    case when reason is null and place > $max_rows then 'over_max_rows' else reason end as reason
from ranked
order by ordinal
