-- select_examples: what becomes of each example: kept, or the reason why it is left out.
-- params   $newest boolean (of examples with one input the last stays, otherwise the first),
--          $distinct boolean (examples with one input are duplicates), $longest boolean (what a
--          longer conversation repeats is left out), $max_rows bigint
-- creates  selected(ordinal, start, size, split_at, repairs, shape,
--          line_start, line_size, reason), from examples and prefixes
create or replace temp table selected as
with
    compared as (
        select *, $longest and conversation in (select hash from prefixes) as covered
        from examples
    ),
    numbered as (
        -- Of what no longer conversation repeats: what is covered is no answer to prefer.
        select
            *,
            row_number() over (
                partition by input, covered
                order by case when $newest then -age else age end
            ) as copy
        from compared
    ),
    judged as (
        select
            *,
            case
                when covered then 'covered_by_longer'
                when $distinct and copy > 1 then 'duplicate'
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
    repairs,
    shape,
    line_start,
    line_size,
    case when reason is null and place > $max_rows then 'over_max_rows' else reason end as reason
from ranked
order by ordinal
