"""Bundles of committed records, on a disk and on S3."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines.bundle import BundleWriter, staging
from pipelines.cli import app
from pipelines.committed_window import CommittedWindow
from pipelines.config import ExportConfig
from pipelines.errors import (
    ConfigError,
    QualityError,
    ResourceError,
    StorageError,
    WindowChangedError,
)
from pipelines.pull import pull
from pipelines.pull_options import parse_options
from pipelines.report import describe_pull
from pipelines.storage import Store, open_store
from tests.builders import event, export, make_config, read_records, write_batch
from tests.pulls import Pulls, answer, chat, texts

CALLS: list[dict[str, Any]] = [
    {"request": chat("a"), "response": answer("A"), "tags": '{"task":"weather","good":"yes"}'},
    {"request": chat("a", "A", "b"), "response": answer("B"), "tags": '{"task":"weather"}'},
    {"request": chat("c"), "response": answer("cut", "length")},
    {"request": chat("c"), "response": '{"error":{"message":"no"}}', "status_code": 500},
    {"request": chat("d"), "response": answer("one"), "tags": '{"good":"yes"}'},
    {"request": chat("d"), "response": answer("two"), "tags": '{"good":"no"}'},
    {"request": '{"input":"x","model":"text-embedding-3-small"}', "response": '{"object":"list"}'},
]


@pytest.fixture
def config(site) -> ExportConfig:
    """An export of a few calls, which is committed."""
    rows = [event(**{"id": str(number), **call}) for number, call in enumerate(CALLS)]
    site.put("a.parquet", write_batch(rows))
    found = make_config(site, partition_by=["model"])
    export(found)
    return found


@pytest.fixture
def pulled(site, config):
    return Pulls(site, config)


def test_rows_are_what_can_train_and_every_other_record_has_a_reason(pulled):
    summary = pulled()

    assert texts(pulled.rows(summary)) == [["a", "A", "b", "B"], ["d", "two"]]
    assert summary.dropped == {
        "covered_by_longer": 1,
        "duplicate": 1,
        "error_output": 1,
        "finish_length": 1,
        "not_chat": 1,
    }
    assert summary.read == summary.total_rows + sum(summary.dropped.values()) == 7


def test_records_are_the_lines_as_exported(site, pulled):
    summary = pulled(format="records")

    assert pulled.files(summary)["train.jsonl"].splitlines() == read_records(site)
    assert not summary.dropped


def test_a_bundle_says_where_it_came_from_and_what_its_files_hold(site, pulled):
    summary = pulled(split={"test": 0.5})
    files = pulled.files(summary)
    said = json.loads(files["bundle.json"])

    assert set(files) == {"README.md", "bundle.json", *(file["path"] for file in said["files"])}
    for file in said["files"]:
        data = files[file["path"]]
        assert file["bytes"] == len(data)
        assert file["sha256"] == hashlib.sha256(data).hexdigest()
        assert file["rows"] == data.count(b"\n")
    (window,) = said["windows"]
    assert window["manifest"] == f"{site.destination_url}/_meta/manifests/all/00000001.json"
    assert said["dropped"] == dict(summary.dropped)
    assert b"configs:" in files["README.md"]
    assert b"dataset_info:" in files["README.md"]


def test_the_same_pull_again_finds_its_bundle_and_changes_nothing(pulled):
    first = pulled("same")
    before = pulled.files(first)

    again = pulled("same")

    assert (first.exists, again.exists) == (False, True)
    assert pulled.files(again) == before


def test_equal_options_make_equal_bytes(pulled):
    options = {"split": {"test": 0.3}, "seed": 3}

    assert pulled.files(pulled(**options)) == pulled.files(pulled(**options))


@pytest.mark.parametrize("lost", ["train.jsonl", "README.md"])
def test_a_file_that_was_lost_comes_back(pulled, lost):
    first = pulled("same")
    before = pulled.files(first)
    pulled.store(first).delete(lost)

    again = pulled("same")

    assert not again.exists
    assert pulled.files(again) == before


@pytest.mark.parametrize("changed", ["train.jsonl", "README.md"])
def test_a_file_that_was_changed_is_named_and_stays(pulled, changed):
    first = pulled("same")
    store = pulled.store(first)
    store.delete(changed)
    store.create(changed, b"{}\n")

    with pytest.raises(QualityError, match=rf"{changed} is not the file .* remove it and pull"):
        pulled("same")
    assert store.read_bytes(changed) == b"{}\n"


def test_the_order_of_options_says_nothing(pulled):
    splits = {"test": 0.3, "validation": 0.3}
    tags = {"task": "weather", "good": "yes"}

    one = pulled(split=splits, tags=tags)
    other = pulled(split=dict(reversed(splits.items())), tags=dict(reversed(tags.items())))

    assert pulled.files(one) == pulled.files(other)


def test_another_bundle_in_the_same_place_is_refused(pulled):
    first = pulled("same")
    before = pulled.files(first)

    with pytest.raises(ConfigError, match="another bundle"):
        pulled("same", conversations="all")
    assert pulled.files(first) == before


def test_a_folder_with_other_things_is_refused(tmp_path, pulled):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")

    with pytest.raises(ConfigError, match=r"holds mine.txt and no bundle"):
        pull(pulled.config, str(folder), parse_options({"format": "openai"}))
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("inside", ["", "/data", "/data/model=gpt-4o", "/_meta/bundles"])
def test_a_place_inside_the_export_is_refused(site, config, inside):
    before = site.paths()

    with pytest.raises(ConfigError, match="--to"):
        pull(config, f"{site.destination_url}{inside}", parse_options({}))
    assert site.paths() == before


def test_a_prefix_above_an_export_is_refused(site, config):
    above = site.destination_url.rpartition("/")[0]

    with pytest.raises(ConfigError, match="--to"):
        pull(config, above, parse_options({}))


def test_a_pull_that_fails_half_way_leaves_no_bundle_and_the_next_one_finishes(pulled, monkeypatch):
    finish = BundleWriter.finish

    def fail(writer):
        finish(writer)
        raise StorageError("gone")

    monkeypatch.setattr(BundleWriter, "finish", fail)
    with pytest.raises(StorageError):
        pulled("half")
    monkeypatch.undo()
    store = open_store(f"{pulled.base}/half", pulled.options)
    assert not list(store.list_objects())

    assert pulled("half").total_rows == 2


@pytest.mark.parametrize("killed_in", ["BundleWriter.write", "BundleWriter.finish"])
def test_a_pull_that_is_killed_leaves_nothing_and_the_next_one_clears_up(
    tmp_path, exported_here, killed_in
):
    to = tmp_path / "bundle"
    code = f"""
import os, signal
from pipelines import pull
from pipelines.bundle import BundleWriter
from pipelines.pull_options import parse_options
from pipelines.pull_summary import PullSummary

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

{killed_in} = die
pull.pull({exported_here!r}, {str(to)!r}, parse_options({{"format": "openai"}}))
"""
    done = subprocess.run([sys.executable, "-c", code], check=False)  # noqa: S603 - our own code
    assert done.returncode == -signal.SIGKILL
    assert not to.exists()

    summary = pull(exported_here, str(to), parse_options({"format": "openai"}))

    assert summary.total_rows == 2
    assert [path.name for path in tmp_path.glob(".bundle*")] == []


def test_a_pull_that_is_terminated_says_so_and_leaves_nothing(tmp_path, exported_here):
    code = f"""
import os, signal, sys
from pipelines.bundle import BundleWriter
from pipelines.cli import main

BundleWriter.finish = lambda _: os.kill(os.getpid(), signal.SIGTERM)
sys.argv = ["request-logs", "pull", {exported_here!r}, "--to", {str(tmp_path / "bundle")!r}]
main()
"""
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )

    assert done.returncode == 143
    assert "request-logs: stopped; " in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*bundle*"))


def test_two_pulls_to_one_place_do_not_meet(tmp_path, exported_here):
    to = tmp_path / "bundle"
    is_refused = pytest.raises(ConfigError, match="another pull is writing")
    with staging(open_store(str(to))) as folder:
        (folder / "train.0").write_bytes(b"{}\n")
        with is_refused:
            pull(exported_here, str(to), parse_options({}))

        assert (folder / "train.0").read_bytes() == b"{}\n"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("destination/data/left.jsonl", "lies inside the export"),
        ("bundle", "lies inside the bundle"),
        ("bundle/left.jsonl", "lies inside the bundle"),
        ("notes.txt", "holds something else"),
    ],
)
def test_rejects_stand_apart_and_replace_no_other_file(tmp_path, exported_here, place, message):
    (tmp_path / "notes.txt").write_text("mine")
    options = parse_options({"format": "openai"})

    with pytest.raises(ConfigError, match=message):
        pull(exported_here, str(tmp_path / "bundle"), options, rejects=tmp_path / place)

    assert not (tmp_path / "bundle").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_rejects_of_the_same_pull_are_written_again(tmp_path, exported_here):
    rejects = tmp_path / "left.jsonl"
    for _ in range(2):
        to = str(tmp_path / "bundle")
        pull(exported_here, to, parse_options({"format": "openai"}), rejects=rejects)

    assert len(rejects.read_text().splitlines()) == 5


def test_an_upload_that_fails_half_way_is_finished_by_the_same_pull(s3_site):
    s3_site.put("a.parquet", write_batch([event(id=str(n), **c) for n, c in enumerate(CALLS)]))
    config = make_config(s3_site)
    export(config)
    pulled = Pulls(s3_site, config)
    create = Store.create
    with pytest.MonkeyPatch.context() as patch:

        def fail(store, path, data):
            if path == "bundle.json":
                raise StorageError("gone")
            return create(store, path, data)

        patch.setattr(Store, "create", fail)
        with pytest.raises(StorageError):
            pulled("half", split={"test": 0.5})

    summary = pulled("half", split={"test": 0.5})

    assert not summary.exists
    assert "bundle.json" in pulled.files(summary)


def test_an_export_that_changes_while_it_is_read_is_read_again(pulled, monkeypatch):
    read = CommittedWindow.part_lines
    changes = [True]

    def change(window):
        for found in read(window):
            yield found
            if changes.pop() if changes else False:
                raise WindowChangedError("window all was exported again", window="all")

    monkeypatch.setattr(CommittedWindow, "part_lines", change)
    summary = pulled()

    assert summary.read == 7
    assert summary.total_rows == 2


def test_an_export_that_changes_all_the_time_fails(pulled, monkeypatch):
    def change(_window):
        raise WindowChangedError("window all was exported again", window="all")
        yield

    monkeypatch.setattr(CommittedWindow, "part_lines", change)

    with pytest.raises(WindowChangedError):
        pulled()


@pytest.mark.parametrize(
    ("options", "found"),
    [
        pytest.param({"tags": {"task": "weather"}}, [["a", "A", "b", "B"]], id="tag"),
        pytest.param({"where": "tags->>'good' = 'no'"}, [["d", "two"]], id="where"),
        pytest.param({"where": "input like '%\"d\"%'"}, [["d", "two"]], id="where-text"),
        pytest.param({"duplicates": "first"}, [["a", "A", "b", "B"], ["d", "one"]], id="first"),
        pytest.param({"max_rows": 1}, None, id="max-rows"),
        pytest.param({"partitions": {"model": "gpt-4o"}, "max_rows": 1}, None, id="partition"),
        pytest.param(
            {"allow_finish": ["length"]},
            [["a", "A", "b", "B"], ["c", "cut"], ["d", "two"]],
            id="finish",
        ),
        pytest.param(
            {"conversations": "all"}, [["a", "A"], ["a", "A", "b", "B"], ["d", "two"]], id="all"
        ),
        pytest.param({"prune": ["a"]}, [["A", "b", "B"], ["d", "two"]], id="prune"),
    ],
)
def test_options_choose_records_and_the_counts_add_up(pulled, options, found):
    summary = pulled(**options)

    assert summary.read == summary.total_rows + sum(summary.dropped.values())
    if found is None:
        assert summary.total_rows == 1
    else:
        assert texts(pulled.rows(summary)) == found


def test_a_split_takes_whole_conversations(site):
    rows = [
        event(
            id=f"{talk}-{turn}",
            request=chat(*([f"q{talk}", "x"] * turn), "q"),
            response=answer("x"),
        )
        for talk in range(60)
        for turn in (1, 2)
    ]
    site.put("a.parquet", write_batch(rows))
    config = make_config(site)
    export(config)
    pulled = Pulls(site, config)

    summary = pulled(split={"test": 0.3}, conversations="all")
    sides = [
        {row["messages"][0]["content"] for row in pulled.rows(summary, split)}
        for split in ("train", "test")
    ]

    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 60
    assert min(summary.rows.values()) > 10


@pytest.mark.parametrize(
    ("fraction", "empty"),
    [pytest.param(1e-9, "test", id="test"), pytest.param(1 - 1e-9, "train", id="train")],
)
def test_a_split_without_a_row_is_told(pulled, fraction, empty):
    summary = pulled("same", split={"test": fraction})

    assert summary.empty_splits == (empty,)
    assert f"  note      no row fell to {empty}, so " in "\n".join(describe_pull(summary))
    assert pulled("same", split={"test": fraction}).exists


def test_no_split_is_empty_where_none_was_asked_for_or_no_row_came_out(pulled):
    assert pulled().empty_splits == ()
    assert pulled(split={"test": 0.5}, tags={"no": "such"}).empty_splits == ()


def test_a_split_by_tag_keeps_the_tag_together(pulled):
    summary = pulled(
        format="records", split={"test": 0.5}, split_by_tag="task", tags={"task": "weather"}
    )

    assert len(summary.rows) == 1
    assert summary.split_tag_missing == 0


def test_records_without_the_tag_to_split_by_are_counted_and_told(pulled):
    summary = pulled(split={"test": 0.5}, split_by_tag="task")

    assert summary.split_tag_missing == 2
    assert "  note      2 records have no tag to split by" in "\n".join(describe_pull(summary))
    assert json.loads(pulled.files(summary)["bundle.json"])["split_tag_missing"] == 2


def test_records_that_could_not_train_stand_beside_their_conversation(site):
    failed = {"response": '{"error":{"message":"no"}}', "status_code": 429}
    cut = {"response": "data: {}"}
    rows = [
        event(id=f"{talk}-{turn}", request=chat(*([f"q{talk}", "x"] * turn), f"q{talk}"), **call)
        for talk in range(20)
        for turn, call in enumerate(({"response": answer("x")}, failed, cut))
    ]
    site.put("a.parquet", write_batch(rows))
    export(config := make_config(site))
    pulled = Pulls(site, config)

    summary = pulled(format="records", split={"test": 0.5})
    sides = [
        {row["input"]["messages"][0]["content"] for row in pulled.rows(summary, split)}
        for split in ("train", "test")
    ]

    assert summary.total_rows == 60
    assert not sides[0] & sides[1]


def test_records_that_are_nested_too_deep_are_split_all_the_same(site):
    deep = '{"a":' * 3_000 + "1" + "}" * 3_000
    rows = [
        event(id=str(n), request=f'{{"messages":{deep}}}', response=answer(str(n)))
        for n in range(10)
    ]
    site.put("a.parquet", write_batch(rows))
    export(config := make_config(site))

    summary = Pulls(site, config)(format="records", split={"test": 0.5})

    assert list(summary.rows.values()) == [10]


def test_records_of_one_conversation_stay_in_one_split(site):
    talk = [chat(*(["q", "x"] * turn), "q", n=turn) for turn in range(10)]
    rows = [event(id=str(n), request=text, response=answer("x")) for n, text in enumerate(talk)]
    site.put("a.parquet", write_batch(rows))
    config = make_config(site)
    export(config)

    assert len(Pulls(site, config)(format="records", split={"test": 0.5}).rows) == 1


def test_a_completion_of_an_earlier_turn_is_not_left_out(pulled):
    summary = pulled(format="trl-completion")

    completions = [row["completion"][0]["content"] for row in pulled.rows(summary)]
    assert completions == ["A", "B", "two"]


def test_a_text_that_was_pruned_stands_nowhere_in_the_bundle(pulled):
    summary = pulled(prune=["a"])

    assert b'"prune": 1' in pulled.files(summary)["bundle.json"]


def test_what_is_nested_too_deep_is_left_out(site):
    deep = '{"a":' * 3_000 + "1" + "}" * 3_000
    tool = f'{{"type":"function","function":{{"name":"f","parameters":{deep}}}}}'
    request = chat("a")[:-1] + f',"tools":[{tool}]}}'
    calls = [{"request": request}, {"request": chat("b")}]
    rows = [event(id=str(n), response=answer("x"), **call) for n, call in enumerate(calls)]
    site.put("a.parquet", write_batch(rows))
    config = make_config(site)
    export(config)

    summary = Pulls(site, config)()

    assert (summary.total_rows, summary.dropped) == (1, {"unreadable_record": 1})


def test_another_pulls_leftovers_on_s3_are_no_part_of_a_bundle(s3_site):
    s3_site.put("a.parquet", write_batch([event(response=answer("x"))]))
    config = make_config(s3_site)
    export(config)
    pulled = Pulls(s3_site, config)
    store = open_store(f"{pulled.base}/left", pulled.options)
    store.create("test.jsonl", b"{}\n")

    with pytest.raises(ConfigError, match="of another pull"):
        pulled("left")
    assert store.stat("bundle.json") is None


@pytest.mark.parametrize("path", ["nowhere/rejects.jsonl", "."])
def test_rejects_that_cannot_be_written_fail_before_anything_is_made(pulled, tmp_path, path):
    with pytest.raises(ConfigError, match=r"--rejects: cannot write .* name a file in a folder"):
        pulled("here", rejects=tmp_path / path)
    assert not list(open_store(f"{pulled.base}/here", pulled.options).list_objects())


def test_what_the_user_filtered_is_not_among_the_rejects(pulled, tmp_path):
    rejects = tmp_path / "rejects.jsonl"

    summary = pulled(where="output not like '%cut%'", tags={"good": "yes"}, rejects=rejects)

    assert summary.dropped == {"tag_filter": 4, "where": 1}
    assert rejects.read_bytes() == b""


def test_openpipe_rows_name_their_split(pulled):
    summary = pulled(format="openpipe", split={"test": 0.5}, seed=1)

    for split, name in (("train", "TRAIN"), ("test", "TEST")):
        assert {row["split"] for row in pulled.rows(summary, split)} <= {name}
    assert summary.total_rows == 2


def test_rejects_keep_the_record_and_its_reason(pulled, tmp_path):
    rejects = tmp_path / "rejects.jsonl"

    pulled(rejects=rejects)

    found = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [reject["reason"] for reject in found] == [
        *("finish_length", "error_output", "not_chat"),
        *("covered_by_longer", "duplicate"),
    ]
    assert found[1]["record"]["output"] == {"error": {"message": "no"}}


def test_a_pull_of_nothing_writes_nothing_and_says_why(pulled):
    summary = pulled(tags={"task": "other"})

    assert summary.dropped == {"tag_filter": 7}
    assert not pulled.files(summary)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"as_of": "2020-01-01T00:00:00Z"}, "of what is kept the first was at 20"),
        ({"partitions": {"model": "other"}}, "holds 7 records, none of them in model=other"),
    ],
)
def test_a_pull_that_reads_nothing_says_what_there_is(pulled, options, why):
    summary = pulled(**options)

    assert summary.read == 0
    assert why in summary.why_empty
    assert why in next(describe_pull(summary))


def test_a_pull_of_other_windows_names_those_that_there_are(site):
    site.put("a.parquet", write_batch([event(requested_at=datetime(2024, 6, 1, tzinfo=UTC))]))
    export(config := make_config(site, window={"every": "1d"}))

    found = pulled_nothing(site, config, start="2031-01-01T00:00:00Z")

    assert "none of its windows, 20240601T000000Z_20240602T000000Z to 202406" in found


def test_a_pull_of_what_was_filtered_or_never_committed_says_so(site):
    site.put("a.parquet", write_batch([event()]))
    export(config := make_config(site, where="false"))

    assert "holds no record; of 1 event filtered 1" in pulled_nothing(site, config)

    for path in site.paths():
        if path.startswith("_meta/manifests/"):
            site.destination.delete(path)
    assert "nothing is committed there yet" in pulled_nothing(site, config)


def pulled_nothing(site, config, **options):
    place = f"{site.destination_url}-bundle"
    return pull(config, place, parse_options({"format": "openai", **options})).why_empty


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize(("duplicates", "stays"), [("first", "one"), ("last", "two")])
def test_first_and_last_are_by_time_where_the_export_is_ordered(site, direction, duplicates, stays):
    rows = [
        event(
            id=text,
            request=chat("d"),
            response=answer(text),
            requested_at=datetime(2024, 6, 1, hour, tzinfo=UTC),
        )
        for hour, text in enumerate(("one", "two"))
    ]
    site.put("a.parquet", write_batch(rows))
    export(config := make_config(site, order_by=f"requested_at {direction}"))
    pulls = Pulls(site, config)

    assert texts(pulls.rows(pulls(duplicates=duplicates))) == [["d", stays]]


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize(("duplicates", "stays"), [("first", "1"), ("last", "4")])
def test_first_and_last_are_by_partition_before_they_are_by_line(
    site, direction, duplicates, stays
):
    rows = [
        event(
            id=text,
            request=chat("d"),
            response=answer(text),
            requested_at=datetime(2024, 6, day, hour, tzinfo=UTC),
        )
        for text, day, hour in (("1", 1, 1), ("2", 1, 2), ("3", 2, 1), ("4", 2, 2))
    ]
    site.put("a.parquet", write_batch(rows))
    ordered = {"order_by": f"requested_at {direction}", "partition_by": ["date"]}
    export(config := make_config(site, **ordered))
    pulls = Pulls(site, config)

    assert texts(pulls.rows(pulls(duplicates=duplicates))) == [["d", stays]]


def test_rows_past_a_files_limit_go_to_the_next(tmp_path):
    writer = BundleWriter(tmp_path, max_file_bytes=25)
    for number in range(5):
        writer.write("train", b"0123456789" if number else b"012")
    writer.write("test", b"x")

    files = writer.finish()

    assert [(file.path, file.rows) for file in files] == [
        ("test.jsonl", 1),
        ("train-00000-of-00003.jsonl", 2),
        ("train-00001-of-00003.jsonl", 2),
        ("train-00002-of-00003.jsonl", 1),
    ]
    assert max(file.bytes for file in files) <= 25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "opneai"}, r"format: must be .* did you mean 'openai'\? \(seen: 'opneai'\)"),
        ({"formt": "openai"}, r"formt: unknown option; did you mean 'format'\?"),
        ({"format": "openai", "pair_style": "trl"}, "pair_style: the format openai has no use"),
        ({"split_by_tag": "x"}, "split_by_tag: there is no split"),
        ({"split": {"test": 0.6, "validation": 0.4}}, "none is left to train"),
        ({"split": {"tset": 0.1}}, r"^split.tset: must be one of test, validation; did you mean"),
        ({"format": "preference"}, "chosen and rejected"),
        ({"chosen": ("a", "b")}, "chosen and rejected"),
        ({"where": "read_text('x') is null"}, "where"),
        ({"where": "model = 'x'"}, "^where: unknown column 'model' .*sees input, output and tags"),
        ({"max_rows": 0}, "^max_rows: must be at least 1$"),
        ({"split": {"test": "x"}}, "^split.test: must be a number$"),
        ({"format": "records", "prune": ("x",)}, "prune: the format records has no use"),
        ({"format": "records", "conversations": "all"}, "conversations"),
        (
            {"format": "preference", "chosen": ("a", "b"), "rejected": ("a", "b")},
            "the same tag and value",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        parse_options(options)


def test_options_with_their_defaults_spelt_out_are_the_same():
    options = parse_options({"format": "records"})

    assert parse_options(options.model_dump()) == options


@pytest.mark.parametrize("where", ["tags.k = 'v'", "regexp_matches(input, '(')"])
def test_a_condition_that_cannot_be_asked_fails_before_anything_is_read(pulled, monkeypatch, where):
    monkeypatch.delattr(CommittedWindow, "part_lines")

    with pytest.raises(ConfigError, match=r"^where: .*sees input, output and tags") as caught:
        pulled(where=where)
    assert "partition_by" not in str(caught.value)


@pytest.mark.parametrize(
    ("where", "kind"),
    [("tags", "VARCHAR"), ("tags ->> 'good'", "VARCHAR"), ("length(input)", "BIGINT")],
)
def test_an_expression_that_is_no_condition_is_refused_in_an_exports_words(
    pulled, monkeypatch, where, kind
):
    monkeypatch.delattr(CommittedWindow, "part_lines")

    with pytest.raises(ConfigError, match=f"^where: gives {kind}, and must give true or false$"):
        pulled(where=where)


def test_a_disk_that_is_full_is_told_in_the_words_of_a_pull(pulled, monkeypatch):
    def fill(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pipelines.spill.os.pwrite", fill)

    with pytest.raises(ResourceError, match=r"spill the rows of the pull .* pull less at a time"):
        pulled()


def test_the_command_pulls_and_tells(tmp_path, exported_here):
    to = tmp_path / "train"
    arguments = ["pull", exported_here, "--to", str(to), "--format", "together"]

    done = CliRunner().invoke(
        app, [*arguments, "--split", "test=0.1", "--seed", "7", "--tag", "task=weather"]
    )

    assert done.exit_code == 0
    assert "1 row for together" in done.stdout
    assert "tag_filter 5" in done.stdout
    assert (to / "bundle.json").exists()
    assert not list(tmp_path.glob(".train*"))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--tag", "x"], 2, "--tag: 'x' is not of the form NAME=VALUE"),
        (["--format", "x"], 2, "format"),
        (["--tag", "a=b"], 0, "nothing was written"),
        (["--tag", "a=1", "--tag", "a=2"], 2, "--tag: a is given 2 times; give it once"),
        (["--as-of", "2020-01-01"], 0, "Nothing to pull from"),
        (["--tag", "a=b", "--require-data"], 1, "no row came out"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path, exported_here, arguments, code, message):
    place = ["--to", str(tmp_path / "to")]
    done = CliRunner().invoke(app, ["pull", exported_here, *place, *arguments])

    assert done.exit_code == code
    assert message in done.stdout + done.stderr


@pytest.fixture
def exported_here(file_site):
    """The folder of an export on this disk."""
    rows = [event(**{"id": str(number), **call}) for number, call in enumerate(CALLS)]
    file_site.put("a.parquet", write_batch(rows))
    export(make_config(file_site))
    return file_site.destination_url
