"""Stores that write over objects: noticed before the first commit, told of, or refused."""

import logging
from dataclasses import replace

import pytest

from pipelines.create_only import is_create_only
from pipelines.errors import ConfigError, StorageError
from pipelines.export import run_export
from pipelines.manifest import commit
from pipelines.s3_client import Client
from pipelines.storage import Store
from tests.builders import NOW, event, export, make_config, read_manifest, write_batch


@pytest.fixture
def overwriting(s3_site, monkeypatch):
    """A destination that ignores `If-None-Match`, as some makes of S3 do."""

    def overwrite(client, operation, **parameters):
        return client.call(operation, **parameters)

    monkeypatch.setattr(Client, "publish", overwrite)
    s3_site.put("a.parquet", write_batch([event()]))
    return s3_site


def warnings(caplog):
    return [record for record in caplog.records if "If-None-Match" in record.getMessage()]


def test_store_that_refuses_a_taken_name_is_create_only(site):
    assert is_create_only(site.destination)
    assert site.paths() == []


def test_store_is_tried_once(s3_site, monkeypatch):
    created = []
    create = Store.create

    def count(store, path, data):
        created.append(path)
        return create(store, path, data)

    monkeypatch.setattr(Store, "create", count)
    s3_site.put("a.parquet", write_batch([event()]))
    created.clear()
    export(make_config(s3_site))
    export(make_config(s3_site), force=True)

    probes = [path for path in created if path.startswith("_meta/tmp/")]
    assert len(probes) == 2
    assert not [path for path in s3_site.paths() if path.startswith("_meta/tmp/")]


def test_probe_that_may_not_be_removed_stops_no_run(s3_site, monkeypatch):
    def refuse(store, path):
        raise StorageError(f"denied {store} {path}")

    s3_site.put("a.parquet", write_batch([event()]))
    monkeypatch.setattr(Store, "delete", refuse)

    assert len(export(make_config(s3_site)).written) == 1


def test_run_that_writes_nothing_tries_nothing(s3_site, monkeypatch):
    s3_site.put("a.parquet", write_batch([event()]))
    export(make_config(s3_site))
    is_create_only.cache_clear()
    monkeypatch.setattr(Store, "create", None)

    assert export(make_config(s3_site)).written == ()


def test_store_that_overwrites_is_warned_of_once_a_run(overwriting, caplog):
    config = make_config(overwriting, window={"every": "1d"})

    with caplog.at_level(logging.WARNING, "pipelines"):
        summary = export(config)

    (warning,) = warnings(caplog)
    assert len(summary.written) > 1
    assert "let one run at a time write there" in warning.getMessage()


def test_strict_commit_refuses_before_anything_is_written(overwriting):
    config = make_config(overwriting, destination={"strict_commit": True})

    with pytest.raises(ConfigError, match=r"destination\.strict_commit .* Nothing was written"):
        run_export(config, now=NOW)

    assert overwriting.paths() == []


def test_strict_commit_takes_a_store_that_refuses_taken_names(site):
    site.put("a.parquet", write_batch([event()]))

    summary = export(make_config(site, destination={"strict_commit": True}))

    assert len(summary.written) == 1


def test_earlier_rival_is_found_before_the_write(overwriting):
    export(make_config(overwriting))
    manifest = read_manifest(overwriting)

    committed = commit(overwriting.destination, replace(manifest, run_id="another"))

    assert committed == manifest == read_manifest(overwriting)


def test_later_rival_is_found_after_the_write(overwriting, monkeypatch):
    export(make_config(overwriting))
    manifest = replace(read_manifest(overwriting), generation=2)
    rival = replace(manifest, run_id="rival")
    create = Store.create

    def overtaken(store, path, data):
        create(store, path, data)
        return create(store, path, rival.to_json())

    monkeypatch.setattr(Store, "create", overtaken)

    assert commit(overwriting.destination, manifest) == rival
