-- time_range: first and last valid event time of one batch, and the events without a valid one.
-- params   $batch varchar, $low_us bigint, $high_us bigint (half-open range of valid times)
-- returns  first_us bigint, last_us bigint, undated bigint
-- Text that is not UTF-8 is no time, and must not stop the count.
with
    recorded as (
        select {{requested_at}} as requested_at
        from read_parquet($batch, hive_partitioning = false, utf8_validation = 'replace')
    ),
    times as (
        select case when isfinite(requested_at) then epoch_us(requested_at) end as us
        from recorded
    )
select
    min(us) filter (where us >= $low_us and us < $high_us) as first_us,
    max(us) filter (where us >= $low_us and us < $high_us) as last_us,
    count(*) filter (where us is null or us < $low_us or us >= $high_us) as undated
from times
