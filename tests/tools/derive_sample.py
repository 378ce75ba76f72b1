"""Derive the bundled sample (`pipelines/sample/openpipe`) from recorded calls.

Run by hand, once per edition of the recordings:

    python -m tests.tools.derive_sample RECORDINGS pipelines/sample/openpipe

RECORDINGS is a Parquet file with one recorded call a row; `pipelines/sample/ORIGIN.md` says where
its calls come from and what each column of the sample means. Same recordings, same pyarrow: same
bytes.
"""

import argparse
from itertools import pairwise
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

MAX_EVENTS_PER_BATCH = 45
ROWS_PER_GROUP = 32
UNDATED = "__HIVE_DEFAULT_PARTITION__"  # how Hive spells a NULL partition value

# The bodies pass through as they are; only the columns around them are made from the recording.
# A recorded duration is the provider's own figure (OpenAI's header, Bedrock's metrics).
_SELECT_EVENTS = """
with
    recorded as (
        select *, if(response_is_json, response_body, null) as body
        from read_parquet($recordings)
    ),
    parsed as (
        select
            *,
            regexp_replace(source, '^[a-z]+:', '') as package,
            coalesce(
                try_cast(response_headers ->> '$."openai-processing-ms"' as integer),
                try_cast(body ->> '$.metrics.latencyMs' as integer)
            ) as duration_ms,
            try_cast(coalesce(
                body ->> '$.usage.prompt_tokens', body ->> '$.usage.input_tokens',
                body ->> '$.usage.inputTokens', body ->> '$.usage.total_input_tokens',
                body ->> '$.usageMetadata.promptTokenCount'
            ) as integer) as input_tokens,
            try_cast(coalesce(
                body ->> '$.usage.completion_tokens', body ->> '$.usage.output_tokens',
                body ->> '$.usage.outputTokens', body ->> '$.usage.total_output_tokens',
                body ->> '$.usageMetadata.candidatesTokenCount'
            ) as integer) as output_tokens,
            coalesce(
                body ->> '$.choices[0].finish_reason', body ->> '$.stop_reason',
                body ->> '$.stopReason', body ->> '$.candidates[0].finishReason'
            ) as finish_reason,
            coalesce(body ->> '$.id', body ->> '$.responseId') as completion_id,
            coalesce(
                body ->> '$.error.message', body ->> '$.message', body ->> '$.detail',
                'HTTP ' || status_code
            ) as error_text
        from recorded
    )
select
    md5(id)::uuid::varchar as id,
    recorded_at as "requestedAt",
    null::timestamptz as "receivedAt",
    false as "cacheHit",
    request_body as "reqPayload",
    response_body as "respPayload",
    status_code as "statusCode",
    if(status_code = 200, null, error_text) as "errorMessage",
    duration_ms as "durationMs",
    input_tokens as "inputTokens",
    output_tokens as "outputTokens",
    finish_reason as "finishReason",
    if(status_code = 200, completion_id, null) as "completionId",
    nullif(model, '') as model,
    null::double as cost,
    md5(package)::uuid::varchar as "projectId",
    map_from_entries(list_filter(
        [
            {'k': 'source', 'v': package},
            {'k': 'version', 'v': source_version},
            {'k': 'provider', 'v': provider},
            {'k': 'kind', 'v': kind},
            {'k': 'streamed', 'v': if(streamed, 'true', null)},
            {'k': 'response_encoding', 'v': nullif(response_encoding, 'text')}
        ],
        lambda tag: tag.v is not null
    )) as tags,
    recorded_at as "createdAt",
    recorded_at as "updatedAt"
from parsed
order by recorded_at nulls last, id
"""
_INSTANTS = ("requestedAt", "receivedAt", "createdAt", "updatedAt")
_LOW_CARDINALITY = ["errorMessage", "finishReason", "model", "projectId", "tags"]


def read_events(recordings: Path) -> pa.Table:
    """Return one row a call in the columns of a logged call, by time, undated ones last."""
    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'")
        events = con.sql(_SELECT_EVENTS, params={"recordings": str(recordings)}).to_arrow_table()
    utc = pa.timestamp("us", tz="UTC")
    return events.cast(
        pa.schema(
            field.with_type(utc) if field.name in _INSTANTS else field for field in events.schema
        )
    )


def split_by_year(events: pa.Table) -> dict[str, pa.Table]:
    """Return the events of each year of `requestedAt`, in order; no year is `UNDATED`."""
    years = [at.year if at else UNDATED for at in events["requestedAt"].to_pylist()]
    return {
        str(year): events.filter(pa.array([other == year for other in years]))
        for year in dict.fromkeys(years)
    }


def write_batches(events: pa.Table, out: Path) -> list[Path]:
    """Write `year=<year>/batch-<n>.parquet` below `out`: adjoining stretches of like size."""
    written = []
    for year, of_year in split_by_year(events).items():
        folder = out / f"year={year}"
        folder.mkdir(parents=True, exist_ok=True)
        batches = -(-of_year.num_rows // MAX_EVENTS_PER_BATCH)
        edges = [of_year.num_rows * n // batches for n in range(batches + 1)]
        for number, (start, end) in enumerate(pairwise(edges), start=1):
            path = folder / f"batch-{number:04}.parquet"
            pq.write_table(
                of_year.slice(start, end - start),
                path,
                row_group_size=ROWS_PER_GROUP,
                compression="zstd",
                compression_level=19,
                use_dictionary=_LOW_CARDINALITY,
                write_statistics=[*_INSTANTS, "id", "model", "statusCode"],
            )
            written.append(path)
    return written


def main() -> None:
    """Write the batches of the sample."""
    parser = argparse.ArgumentParser(description="Derive the bundled sample from recorded calls.")
    parser.add_argument("recordings", type=Path, help="Parquet file of recorded calls")
    parser.add_argument("out", type=Path, help="folder for the batches")
    arguments = parser.parse_args()
    for path in write_batches(read_events(arguments.recordings), arguments.out):
        print(path, pq.read_metadata(path).num_rows, path.stat().st_size)  # noqa: T201 - a script


if __name__ == "__main__":
    main()
