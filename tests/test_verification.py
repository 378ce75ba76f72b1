"""Verify and repair: what is there against what the manifests say."""

import json

import pytest

from pipelines.errors import ConfigError
from pipelines.verification import repair_export, verify_export
from tests.builders import (
    NOW,
    event,
    events,
    export,
    make_config,
    read_manifest,
    read_records,
    write_batch,
)


def put_and_export(site, rows=None, **changes):
    site.put("a.parquet", write_batch(rows or events([{"model": "a"}, {"model": "b"}])))
    config = make_config(site, **changes)
    return config, export(config)


def test_verify_counts_what_is_committed(site):
    config, summary = put_and_export(site, partition_by=["model"])

    found = verify_export(config, deep=True)

    assert (found.windows, found.parts, found.records) == (1, 2, 2)
    assert found.bytes == summary.written[0].bytes
    assert (found.problems, found.stray, found.deep) == ((), (), True)


def test_verify_of_an_empty_destination_says_so(site):
    found = verify_export(make_config(site))

    assert (found.windows, found.parts) == (0, 0)
    assert found.problems == (f"nothing is committed at {site.destination.url}",)


def test_verify_names_gone_truncated_and_altered_parts(site):
    config, _ = put_and_export(
        site, events([{"model": name} for name in "abc"]), partition_by=["model"]
    )
    gone, cut, altered = [part.path for part in read_manifest(site).parts]
    data = {path: site.destination.read_bytes(path) for path in (cut, altered)}
    site.destination.delete(gone)
    site.put(cut, data[cut][:-1], url=site.destination_url)
    site.put(altered, data[altered][:-1] + b"\xff", url=site.destination_url)

    size_cut = len(data[cut])

    shallow, deep = verify_export(config), verify_export(config, deep=True)

    assert [problem.split(" (")[0].rpartition("/")[2] for problem in shallow.problems] == [
        f"{gone.rpartition('/')[2]} is gone",
        f"{cut.rpartition('/')[2]} has {size_cut - 1} bytes, its manifest says {size_cut}",
    ]
    assert len(deep.problems) == 3
    assert deep.problems[2].endswith("has other bytes than its manifest says")


def test_verify_looks_at_rejects_too(site):
    config, _ = put_and_export(site, [event(), event(id="x", request="{")], max_reject_ratio=1)
    site.destination.delete(read_manifest(site).rejects[0].path)

    (problem,) = verify_export(config).problems

    assert "_meta/rejects/" in problem
    assert "is gone" in problem


def alter_manifest(site, change):
    path = read_manifest(site).path
    document = json.loads(site.destination.read_bytes(path))
    change(document)
    site.put(path, json.dumps(document).encode(), url=site.destination_url)


def test_verify_finds_a_ledger_that_does_not_add_up(site):
    config, _ = put_and_export(site)

    def one_more(document):
        document["export"]["ledger"]["read"] += 1

    alter_manifest(site, one_more)

    assert any("does not add up" in problem for problem in verify_export(config).problems)


def test_verify_names_a_damaged_manifest(site):
    config, _ = put_and_export(site)
    path = read_manifest(site).path
    data = site.destination.read_bytes(path)
    site.put(path, data[: len(data) // 2], url=site.destination_url)

    assert any("00000001.json" in problem for problem in verify_export(config).problems)


@pytest.mark.parametrize(
    "path",
    [
        "data/notes.txt",
        "data/part-0.jsonl.gz",
        "_meta/manifests/all/1.json",
        "_meta/manifests/x/00000001.json",
    ],
)
def test_verify_names_foreign_objects_where_readers_would_find_them(site, path):
    config, _ = put_and_export(site)
    site.put(path, b"{}", url=site.destination_url)

    (problem,) = verify_export(config).problems

    assert problem.startswith(site.destination.absolute_url(path))


def test_verify_names_the_manifest_of_another_export(site):
    config, _ = put_and_export(site)

    def rename(document):
        document["export"]["name"] = "other"

    alter_manifest(site, rename)

    assert any("another export, 'other'" in problem for problem in verify_export(config).problems)


def test_verify_of_another_exports_destination_is_refused(site):
    put_and_export(site)

    with pytest.raises(ConfigError, match="belongs to another export"):
        verify_export(make_config(site, name="other"))


def harm(site):
    """Remove one part, cut one and alter one; return what their records were."""
    gone, cut, altered = [part.path for part in read_manifest(site).parts]
    data = {path: site.destination.read_bytes(path) for path in (cut, altered)}
    site.destination.delete(gone)
    site.put(cut, data[cut][:-1], url=site.destination_url)
    site.put(altered, data[altered][:-1] + b"\xff", url=site.destination_url)


def test_repair_exports_broken_windows_again(site):
    rows = events([{"model": name} for name in "abc"])
    config, _ = put_and_export(site, rows, partition_by=["model"])
    before = sorted(read_records(site))
    harm(site)

    found, repaired = repair_export(config, now=NOW, deep=True)

    assert found.broken == ("all",)
    assert [(window.status, window.generation) for window in repaired] == [("committed", 2)]
    assert verify_export(config, deep=True).problems == ()
    assert sorted(read_records(site)) == before
    assert repair_export(config, now=NOW) == (verify_export(config), ())


def test_repair_says_when_the_source_has_a_window_no_more(site):
    site.put("b.parquet", write_batch([event(id="x")]))
    config, _ = put_and_export(site, [event(id="y")])
    (part,) = read_manifest(site).parts
    site.destination.delete(part.path)
    site.source.delete("a.parquet")

    _, (left,) = repair_export(config, now=NOW)

    assert left.error.startswith("source expired: ")
    assert "a.parquet" in left.error
    assert verify_export(config).broken == ("all",)
