-- utc_time(x): a timestamptz as a naive timestamp in UTC; null when it is infinite.
create temp macro utc_time(x) as
case when isfinite(x) then make_timestamp(epoch_us(x)) end
