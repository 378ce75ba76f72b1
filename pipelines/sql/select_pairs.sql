-- select_pairs: of each input the newest answer that is chosen and the newest that is rejected.
-- params   $max_rows bigint
-- creates  selected(ordinal, start, size, rejected_start, rejected_size, split_at, repairs,
--          reason), from examples
create or replace temp table selected as
with
    newest as (
        select
            *,
            row_number() over (partition by input, side order by ordinal desc) as copy,
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
        from newest
    ),
    ranked as (
        select *, row_number() over (partition by reason is null, side order by lot, input) as place
        from judged
    )
select
    c.ordinal,
    c.start,
    c.size,
    r.start as rejected_start,
    r.size as rejected_size,
    c.split_at,
    list_distinct(c.repairs || coalesce(r.repairs, [])) as repairs,
    coalesce(c.reason, case when c.place > $max_rows then 'over_max_rows' end) as reason
from ranked as c left join ranked as r
    on c.reason is null and r.reason is null and r.input = c.input and r.side = 'rejected'
where c.side = 'chosen' or c.reason is not null
order by c.ordinal
