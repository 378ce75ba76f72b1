-- plan_states: the cached states of the newest manifests, without the batches that those read.
-- params   $states varchar[] (Parquet)
-- creates  states(window, generation, config_digest, input_digest, format_version, summary, file,
--          row), one of each window; the last two say where it stands
create or replace temp table states as
select
    kept.window,
    kept.generation,
    kept.config_digest,
    kept.input_digest,
    kept.format_version,
    kept.summary,
    kept.filename as file,
    kept.file_row_number as row
from read_parquet($states, filename = true, file_row_number = true) as kept
    join newest
        on
            newest.window = kept.window
            and newest.generation = kept.generation
            and newest.etag = kept.etag
qualify row_number() over (partition by kept.window order by kept.filename, kept.file_row_number) = 1
