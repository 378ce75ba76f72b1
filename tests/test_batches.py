"""Batches: which objects are found, and what becomes of those that cannot be read."""

import base64
import io
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest

from pipelines.errors import ContractError
from pipelines.export import run_export
from pipelines.plan import plan_export
from tests.builders import (
    NOW,
    event,
    events,
    export,
    make_config,
    read_manifest,
    read_manifests,
    read_records,
    schema_with,
    write_batch,
)

DAY_1 = "20240601T000000Z_20240602T000000Z"
DAY_2 = "20240602T000000Z_20240603T000000Z"
NOON = datetime(2024, 6, 1, 12, tzinfo=UTC)
AFTER = datetime(2024, 6, 3, 1, tzinfo=UTC)
DATED = {"date_path": "date=%Y-%m-%d"}


def at(*times):
    return write_batch(events({"requested_at": time, "id": None} for time in times))


class _Keys(pe.KmsClient):
    """A key store that keeps nothing secret."""

    def wrap_key(self, key_bytes, _master_key):
        return base64.b64encode(key_bytes)

    def unwrap_key(self, wrapped_key, _master_key):
        return base64.b64decode(wrapped_key)


def encrypted(*, plain_footer=False):
    """A Parquet file with encrypted columns, as pyarrow writes it."""
    settings = pe.EncryptionConfiguration(
        footer_key="f", column_keys={"c": ["request"]}, plaintext_footer=plain_footer
    )
    factory = pe.CryptoFactory(lambda _settings: _Keys())
    keys = factory.file_encryption_properties(pe.KmsConnectionConfig(), settings)
    table = pq.read_table(io.BytesIO(at(NOON)))
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema, encryption_properties=keys) as writer:
        writer.write_table(table)
    return buffer.getvalue()


BROKEN = [
    pytest.param(lambda: b"id,model\n1,gpt-4o\n" * 9, "no readable Parquet footer", id="csv"),
    pytest.param(lambda: at(NOON)[:-40], "no readable Parquet footer", id="truncated"),
    pytest.param(lambda: b"", "empty object", id="empty"),
    pytest.param(lambda: b"PAR1", "no readable Parquet footer", id="magic-alone"),
    pytest.param(encrypted, "encrypted Parquet", id="encrypted"),
    pytest.param(
        lambda: encrypted(plain_footer=True), "encrypted Parquet", id="encrypted-plain-footer"
    ),
]


@pytest.mark.parametrize(("make", "message"), BROKEN)
def test_unreadable_batch_blocks_only_the_windows_of_its_folder(site, make, message):
    site.put("date=2024-06-01/a.parquet", at(NOON))
    site.put("date=2024-06-02/a.parquet", at(NOON + timedelta(days=1)))
    site.put("date=2024-06-02/b.parquet", make())

    summary = run_export(make_config(site, window={"every": "1d"}, source=DATED), now=AFTER)

    (failed,) = summary.failed
    assert (failed.window, failed.status) == (DAY_2, "blocked")
    assert "date=2024-06-02/b.parquet" in failed.error
    assert message in failed.error
    assert [manifest.window for manifest in read_manifests(site)] == [DAY_1]


def test_unreadable_batch_without_a_date_blocks_every_window(site):
    site.put("a.parquet", at(NOON))
    site.put("b.parquet", b"no parquet at all")

    summary = run_export(make_config(site, window={"every": "1d"}), now=AFTER)

    assert [window.window for window in summary.failed] == [DAY_1, DAY_2]
    assert read_manifests(site) == []


def test_unreadable_batch_that_comes_late_fails_the_run(site):
    site.put("a.parquet", at(NOON))
    export(make_config(site))
    site.put("b.parquet", b"no parquet at all")

    summary = run_export(make_config(site), now=NOW)

    assert "b.parquet" in summary.failed[0].error
    assert len(read_records(site)) == 1


def test_unreadable_batch_of_the_first_day_is_not_passed_over(site):
    site.put("date=2024-06-01/a.parquet", b"no parquet at all")
    site.put("date=2024-06-02/a.parquet", at(NOON + timedelta(days=1)))

    summary = run_export(make_config(site, window={"every": "1d"}, source=DATED), now=AFTER)

    assert [window.window for window in summary.failed] == [DAY_1]


def test_source_of_unreadable_batches_alone_fails_the_run(site):
    site.put("a.parquet", b"no parquet at all")

    with pytest.raises(ContractError, match=r"a\.parquet: no readable Parquet footer"):
        export(make_config(site))

    assert site.paths() == []


def test_skipped_batch_is_recorded_and_exported_once_readable(site):
    site.put("a.parquet", at(NOON))
    site.put("b.parquet", b"no parquet at all")
    config = make_config(site, source={"on_unreadable_batch": "skip"})
    export(config)
    recorded = {batch.path: batch.unreadable for batch in read_manifest(site).batches}
    assert recorded["a.parquet"] == ""
    assert "Parquet footer" in recorded["b.parquet"]
    assert export(config).written == ()

    site.put("b.parquet", at(NOON))
    summary = export(config)

    assert [window.detail for window in summary.written] == ["late batch"]
    assert len(read_records(site)) == 2


def test_pages_that_are_damaged_fail_the_window(site):
    data = bytearray(at(*[NOON] * 50))
    data[4:400] = bytes(396)
    site.put("a.parquet", bytes(data))

    summary = run_export(make_config(site), now=NOW)

    assert "a.parquet" in summary.failed[0].error
    assert read_manifests(site) == []


def test_absent_optional_column_is_null(site):
    site.put("a.parquet", write_batch([event(id=None)]))
    site.put("b.parquet", write_batch([event(id=None)], schema_with(model=None)))

    export(make_config(site, partition_by=["model"]))

    assert {part.partition for part in read_manifest(site).parts} == {
        "model=gpt-4o",
        "model=__HIVE_DEFAULT_PARTITION__",
    }


def test_absent_needed_column_names_batch_and_column(site):
    site.put("a.parquet", write_batch([event()]))
    site.put("b.parquet", write_batch([event()], schema_with(response=None)))

    with pytest.raises(ContractError, match=r"b\.parquet: no column 'response'") as caught:
        export(make_config(site))

    assert (caught.value.batch, caught.value.column) == ("b.parquet", "response")


@pytest.mark.parametrize(
    "types",
    [
        pytest.param({"status_code": pa.int64(), "duration_ms": pa.int32()}, id="int-widths"),
        pytest.param({"request": pa.large_string(), "model": pa.large_string()}, id="large-string"),
        pytest.param({"model": pa.dictionary(pa.int32(), pa.string())}, id="dictionary"),
        pytest.param({"requested_at": pa.timestamp("ms", tz="UTC")}, id="milliseconds"),
        pytest.param({"requested_at": pa.timestamp("us")}, id="naive"),
    ],
)
def test_types_that_differ_without_loss_are_read_side_by_side(site, types):
    site.put("a.parquet", write_batch([event(id="a")]))
    other = pq.read_table(pa.BufferReader(write_batch([event(id="b")])))
    schema = schema_with(**types)
    sink = pa.BufferOutputStream()
    pq.write_table(other.cast(schema), sink)
    site.put("b.parquet", sink.getvalue().to_pybytes())

    export(make_config(site, partition_by=["date", "model", "status"]))

    manifest = read_manifest(site)
    assert manifest.ledger.exported == 2
    assert len(manifest.parts) == 1


def test_types_that_do_not_fit_name_batch_and_column(site):
    site.put("a.parquet", write_batch([event()]))
    site.put(
        "b.parquet", write_batch([event(status_code="200")], schema_with(status_code=pa.string()))
    )

    with pytest.raises(ContractError, match=r"b\.parquet: column 'status_code'") as caught:
        export(make_config(site))

    assert (caught.value.batch, caught.value.column) == ("b.parquet", "status_code")


def test_batch_without_rows_is_no_trouble(site):
    site.put("a.parquet", write_batch([]))
    site.put("b.parquet", write_batch([event()]))

    export(make_config(site))

    assert len(read_records(site)) == 1


def put_tree(site):
    for path in ("x/2024/a.parquet", "x/2024/06/b.parq", "x/c.txt", "x/_temporary/d.parquet",
                 "x/.hidden.parquet", "y/e.parquet"):  # fmt: skip
        site.put(path, at(NOON))


@pytest.mark.parametrize(
    ("below", "found"),
    [
        pytest.param("", 3, id="folder"),
        pytest.param("/x", 2, id="prefix"),
        pytest.param("/x/", 2, id="prefix-slash"),
        pytest.param("/**/*.parquet", 2, id="any-depth"),
        pytest.param("/x/*/*.parquet", 1, id="one-level"),
        pytest.param("/?/e.parquet", 1, id="one-character"),
        pytest.param("/[xy]/**/*.par*", 3, id="set"),
        pytest.param("/y/e.parquet", 1, id="single-file"),
        pytest.param("/nothing", 0, id="nothing"),
    ],
)
def test_url_says_which_objects_are_batches(site, below, found):
    put_tree(site)

    plan = plan_export(make_config(site, source={"url": site.source_url + below}), now=NOW)

    assert plan.batches == found


def test_single_file_is_exported(site):
    put_tree(site)

    export(make_config(site, source={"url": f"{site.source_url}/y/e.parquet"}))

    assert [batch.path for batch in read_manifest(site).batches] == ["e.parquet"]
    assert len(read_records(site)) == 1
