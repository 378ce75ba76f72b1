-- window_events: the events of one window in some batches; stands before a caller's select.
-- With the table of losers joined, the order of rows is lost.
-- params   $batches varchar[] (local files), $first_batch int (number of the first of them),
--          $first_row bigint, $end_row bigint, $start timestamp, $end timestamp (UTC)
-- returns  events(batch int, row bigint, the event's fields, recorded_*, lost int)
with
    all_events as (
        select
            ($first_batch + file_index)::integer as batch,
            file_row_number as row,
            {{fields}}
        from read_parquet($batches, hive_partitioning = false)
        where file_row_number >= $first_row and file_row_number < $end_row {{time_pruning}}
    ),
    events as (
        select all_events.*, requested_at as sent_at, {{derived}} {{lost}} as lost
        from all_events {{losers}}
        where {{in_window}}
    ),
