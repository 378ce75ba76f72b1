-- plan_inputs: the inputs of each window in numbers.
-- returns  number bigint, batches bigint, rows bigint, bytes bigint, by number
select
    number,
    count(*) as batches,
    sum(rows)::bigint as rows,
    sum(bytes)::bigint as bytes
from feeds
group by number
order by number
