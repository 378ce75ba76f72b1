-- plan_fixed_feeds: which batches hold events of a window that is not on a grid.
-- params   $number bigint (the window's), $undated boolean (whether it is `undated`, not `all`)
-- creates  rows of feeds
-- note     rows without time are all undated, or, where no time is mapped, none
insert into feeds
select
    $number,
    ordinal,
    rows,
    list_sum(list_transform(groups, lambda g: g.bytes))::bigint as bytes
from batches
where case
    when $undated then undated > 0
    else rows > 0 and (first_us is not null or undated < rows)
end
