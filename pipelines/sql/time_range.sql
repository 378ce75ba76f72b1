-- time_range: first and last valid event time of one batch, and the events without a valid one.
-- params   $batch varchar, $low_us bigint, $high_us bigint (half-open range of valid times),
--          $origin_us bigint, $every_us bigint (of the grid of windows)
-- returns  first_us bigint, last_us bigint, undated bigint, windows bigint[] (by number)
with
    times as (
        -- Text that is not UTF-8 is no time, and must not stop the count.
        select epoch_us({{requested_at}}) as us
        from read_parquet($batch, hive_partitioning = false, utf8_validation = 'replace')
    )
select
    min(us) filter (where us >= $low_us and us < $high_us) as first_us,
    max(us) filter (where us >= $low_us and us < $high_us) as last_us,
    count(*) filter (where us is null or us < $low_us or us >= $high_us) as undated,
    list_sort(
        list(distinct floor_div(us - $origin_us, $every_us))
        filter (where us >= $low_us and us < $high_us)
    ) as windows
from times
