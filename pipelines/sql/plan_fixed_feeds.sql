-- plan_fixed_feeds: which batches hold events of a window that is not on a grid.
-- params   $number bigint (the window's), $undated boolean (whether it is `undated`, not `all`)
-- creates  rows of feeds
insert into feeds
with
    timed as (
        select bool_or(first_us is not null) as any_timed
        from batches
    )
select
    $number,
    ordinal,
    rows,
    list_sum(list_transform(groups, lambda g: g.bytes))::bigint as bytes
from batches, timed
where case
    when $undated then undated > 0
    else rows > 0 and (first_us is not null or any_timed is not true)
end
