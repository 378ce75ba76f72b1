import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from pipelines.export import run_export
from pipelines.progress import Bar, Count, Lines
from pipelines.report import describe_run, first_record, size
from pipelines.upkeep import check_export, preview_export
from pipelines.words import say_count
from tests.builders import NOW, event, events, export, make_config, write_batch


def put_and_export(site, rows=None, **changes):
    site.put("a.parquet", write_batch(rows or events([{"model": "a"}, {"model": "b"}])))
    config = make_config(site, **changes)
    return config, export(config)


def test_check_leaves_nothing_behind(site):
    site.put("a.parquet", write_batch([event()]))

    found = list(check_export(make_config(site), now=NOW))

    assert all(finding.ok for finding in found)
    names = [finding.what for finding in found]
    assert names == ["source", "mapping", "fields", "no column", "destination"]
    assert not [path for path in site.paths() if "probe" in path]


def test_check_says_which_columns_are_not_there_and_that_the_date_path_fits_nothing(site):
    site.put("day=1/a.parquet", write_batch([event()]))

    found = {f.what: f for f in check_export(dated_config(site), now=NOW)}

    assert "completion_id" in found["no column"].seen
    assert "completion_id" not in found["fields"].seen
    assert not found["date_path"].ok


def dated_config(site):
    return make_config(site, source={"date_path": "date=%Y-%m-%d"})


def test_check_goes_on_behind_a_destination_that_cannot_be_written(site, tmp_path):
    site.put("a.parquet", write_batch([event()]))
    (tmp_path / "taken").write_text("a file, no folder")
    config = make_config(site, destination={"url": f"{tmp_path}/taken/out"})

    found = list(check_export(config, now=NOW))

    names = [finding.what for finding in found]
    assert names == ["source", "mapping", "fields", "no column", "destination"]
    assert [finding.ok for finding in found] == [True, True, True, True, False]
    assert "taken" in found[-1].seen


def test_check_goes_on_behind_a_source_that_cannot_be_read(file_site, s3_site):
    source = {"url": "s3://no-such-bucket/raw", "storage_options": s3_site.storage_options}
    config = make_config(file_site, source=source)

    found = list(check_export(config, now=NOW))

    assert [(finding.what, finding.ok) for finding in found] == [
        ("source", False),
        ("destination", True),
    ]
    assert "no-such-bucket" in found[0].seen


def test_check_names_both_places_that_cannot_be_reached(s3_site):
    nowhere = {"storage_options": s3_site.storage_options}
    config = make_config(
        s3_site,
        source={"url": "s3://no-such-bucket/raw"} | nowhere,
        destination={"url": "s3://no-such-bucket/out"} | nowhere,
    )

    found = list(check_export(config, now=NOW))

    assert [(finding.what, finding.ok) for finding in found] == [
        ("source", False),
        ("destination", False),
    ]


def test_preview_shows_committed_records_too(site):
    config, summary = put_and_export(site)
    before = site.paths()

    plan, lines = preview_export(config, 5, now=NOW)

    assert plan.batches == 1
    assert len(lines) == 2
    assert lines[0].rstrip(b"\n") == first_record(summary, site.storage_options)
    assert site.paths() == before


def test_preview_leaves_out_what_the_export_would(site):
    site.put("a.parquet", write_batch([event(id="x"), event(id="y"), event(id="x")]))
    config = make_config(site, remove_duplicates="record")

    _, lines = preview_export(config, 5, now=NOW)

    assert len(lines) == 1


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_first_record_is_read_whatever_the_compression(site, compression):
    _, summary = put_and_export(site, compression=compression)

    assert json.loads(first_record(summary, {}) or b"{}")["tags"] == {"prompt_id": "greet"}


def test_run_without_records_has_no_first_record(site):
    _, summary = put_and_export(site, where="false")

    assert first_record(summary, {}) is None


def test_run_tells_of_a_window_that_another_run_committed(site):
    _, summary = put_and_export(site)
    said = "already committed by run 1f at 2024-06-15T12:00:00Z"
    rival = replace(summary.windows[0], status="committed by another run", detail=said)

    text = "\n".join(describe_run(replace(summary, windows=(rival,))))

    assert f"left alone      all: {said}" in text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_234_567, "1.2 MB")]
)
def test_size_is_for_people(number, text):
    assert size(number) == text


def test_lines_tell_rate_and_time_left(monkeypatch):
    stream = io.StringIO()
    clock = iter([0.0, 5.0, 20.0])
    monkeypatch.setattr("pipelines.progress.time.monotonic", lambda: next(clock))

    with Lines(stream) as lines:
        lines.start(100, 2)
        lines.add(10, 1_000_000)
        lines.add(40, 3_000_000)

    assert stream.getvalue().splitlines() == [
        "exporting 2 windows, up to 100 events",
        "50 of up to 100 events, 4 MB, 0 MB/s, about 20 s left",
    ]


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 batches"), (1, "1 batch"), (2000, "2,000 batches")]
)
def test_counts_are_told_as_people_say_them(number, text):
    assert say_count(number, "batch", "batches") == text


def test_one_of_a_kind_is_no_plural(monkeypatch):
    stream = io.StringIO()
    clock = iter([0.0, 0.0, 10.0])
    monkeypatch.setattr("pipelines.progress.time.monotonic", lambda: next(clock))

    Lines(stream).start(1, 1)
    Count(stream, "record").add(1)

    assert stream.getvalue().splitlines() == [
        "exporting 1 window, up to 1 event",
        "1 record, 0 a second",
    ]


def test_lines_of_nothing_to_do_are_none():
    stream = io.StringIO()

    Lines(stream).start(0, 0)

    assert not stream.getvalue()


def test_bar_counts_events_and_bytes(site):
    site.put("a.parquet", write_batch([event()]))
    drawn = io.StringIO()

    with Bar(Console(file=drawn, force_terminal=True, width=120)) as bar:
        run_export(
            make_config(site),
            now=NOW,
            on_plan=lambda plan: bar.start(1, len(plan.to_do)),
            progress=bar.add,
        )

    assert "1 of up to 1 event " in drawn.getvalue()
    assert "0 MB  " in drawn.getvalue()
