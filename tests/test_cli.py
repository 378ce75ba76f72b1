import gzip
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import pytest
import typer.main
import yaml
from typer.core import TyperOption
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.manifest import PACKAGE, package_version
from tests.builders import events, write_batch

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
COMMANDS = sorted(typer.main.get_group(app).commands)
FIRST_DAY = datetime(2024, 6, 1, 9, tzinfo=UTC)


class Job:
    """One config file, its source and its destination in a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.path = folder / "export.yaml"
        self.destination = folder / "out"

    def put(self, name, rows):
        path = self.folder / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(write_batch(rows))

    def configure(self, **changes):
        document = {
            "name": "chats",
            "source": {"url": "raw", "preset": "generic"},
            "destination": {"url": "out"},
            "window": {"every": "1d", "start": "2024-06-01"},
            "partition_by": ["date"],
        }
        self.path.write_text(yaml.safe_dump(document | changes), "utf-8")

    def parts(self, destination=None):
        return sorted((destination or self.destination).glob("data/**/*.jsonl.gz"))

    def records(self, destination=None):
        lines = [gzip.decompress(part.read_bytes()) for part in self.parts(destination)]
        return [json.loads(line) for line in b"".join(lines).splitlines()]


@pytest.fixture
def job(tmp_path):
    """Two days of two and one events, exported by the day."""
    job = Job(tmp_path)
    times = [FIRST_DAY, FIRST_DAY + timedelta(hours=1), FIRST_DAY + timedelta(days=1)]
    models = ["gpt-4o", "gpt-4o-mini", "gpt-4o"]
    rows = [{"requested_at": at, "model": m} for at, m in zip(times, models, strict=True)]
    job.put("a.parquet", events(rows))
    job.configure()
    return job


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def complaint(*arguments, code):
    """What is printed on stderr by a call that fails: one paragraph, no traceback."""
    result = run(*arguments, code=code)
    assert "Traceback" not in result.output
    assert "\n\n" not in result.stderr.strip()
    assert "request-logs: " in result.stderr
    return result.stderr


def test_export_prints_counts(job):
    out = run("export", job.path, "--end", "2024-06-03", "--start", "2024-06-01").stdout

    assert "2 committed, 0 up to date" in out
    assert "3 read, 3 exported" in out
    assert f"{job.destination}/data/" in out
    assert len(job.records()) == 3


def test_progress_goes_to_stderr_alone(job):
    result = run("export", job.path, "--start", "2024-06-01", "--end", "2024-06-02")

    assert "exporting 1 window, up to 3 events" in result.stderr
    assert "exporting" not in result.stdout


def test_second_export_says_in_one_line_that_there_is_nothing_to_do(job):
    slice_ = ("--start", "2024-06-01", "--end", "2024-06-03")
    run("export", job.path, *slice_)

    out = run("export", job.path, *slice_).stdout

    assert out == "Nothing to do: 2 windows are up to date.\n"


def test_force_writes_again(job):
    job.configure(window=None)
    run("export", job.path)

    assert "1 committed" in run("export", job.path, "--force").stdout


def test_json_is_one_object_with_the_data_files(job):
    job.configure(window=None)

    document = json.loads(run("export", job.path, "--json").stdout)

    assert document["committed"] == 1
    assert document["ledger"]["exported"] == 3
    assert len(document["data_files"]) == 2
    assert all(Path(url.removeprefix("file://")).is_file() for url in document["data_files"])


def test_ledger_columns_and_rejects_are_printed_with_their_reasons(job):
    job.configure(
        window=None,
        max_reject_ratio=1,
        filters=[{"field": "model", "comparator": "=", "value": "gpt-4o"}],
    )
    job.put("b.parquet", events([{"id": "x", "request": "{"}, {"id": "y", "request": "["}]))

    out = run("export", job.path).stdout

    assert "5 read, 2 exported" in out
    assert "filtered        1 (model = 1)" in out
    assert "rejected        2 (" in out
    assert "_meta/rejects/" in out


def test_one_window_of_the_grid_can_be_chosen(job):
    run("export", job.path, "--start", "2024-06-02", "--end", "2024-06-03T00:00:00+00:00")

    assert [part.parent.name for part in job.parts()] == ["date=2024-06-02"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        pytest.param(
            ("--start", "2024-06-01T12:00:00", "--end", "2024-06-03"),
            "the nearest are 2024-06-01T00:00:00Z and 2024-06-02T00:00:00Z",
            id="off-grid",
        ),
        pytest.param(("--start", "2024-06-01"), "go together", id="start-alone"),
        pytest.param(("--start", "today", "--end", "2024-06-03"), "'today'", id="no-date"),
        pytest.param(("--start", "2024-06-03", "--end", "2024-06-01"), "before", id="reversed"),
    ],
)
def test_wrong_windows_are_refused(job, options, reason):
    assert reason in complaint("export", job.path, *options, code=2)
    assert not job.destination.exists()


def test_plan_writes_nothing(job):
    out = run("plan", job.path, "--start", "2024-06-01", "--end", "2024-06-03").stdout

    assert out.count("missing") == 2
    assert "2 windows to write" in out
    assert "Nothing was written." in out
    assert not job.destination.exists()


def test_plan_as_json_names_every_window_and_its_batches(job):
    document = json.loads(
        run("plan", job.path, "--start", "2024-06-01", "--end", "2024-06-03", "--json").stdout
    )

    assert [window["status"] for window in document["windows"]] == ["missing", "missing"]
    assert document["windows"][0]["batches"] == ["a.parquet"]


def test_plan_of_many_windows_is_cut(job):
    out = run("plan", job.path).stdout

    assert "more windows (all of them with --json)" in out
    assert len(out.splitlines()) == 42


def test_plan_after_an_export_says_why_a_window_is_stale(job):
    job.configure(window=None)
    run("export", job.path)
    job.put("late.parquet", events([{"id": "late"}]))

    out = run("plan", job.path).stdout

    assert "late batch" in out
    assert "late.parquet" in out


def test_preview_prints_pretty_records_and_writes_nothing(job):
    out = run("preview", job.path, "-n", "2").stdout

    decoder = json.JSONDecoder()
    first, end = decoder.raw_decode(out)
    second, end = decoder.raw_decode(out, end + 1)
    assert list(first) == list(second) == ["input", "output", "tags"]
    assert not out[end:].strip()
    assert not job.destination.exists()


def test_preview_cuts_long_texts(job):
    request = json.dumps({"messages": ["x" * 5000]})
    job.put("a.parquet", events([{"request": request}]))

    out = run("preview", job.path).stdout

    assert "… (5,000 characters)" in out
    assert len(out) < 2000


def test_preview_of_no_record_says_so(job):
    result = run("preview", job.path, "--where", "model = 'none'")

    assert not result.stdout
    assert "no record" in result.stderr


def test_check_names_what_it_found(job):
    out = run("check", job.path).stdout

    assert "NOT OK" not in out
    assert "1 batch, 3 events" in out
    assert "generic@1" in out
    assert "can be written" in out
    assert not [path for path in job.destination.rglob("*") if path.is_file()]


def test_check_of_an_empty_source_is_not_ok(job):
    (job.folder / "raw" / "a.parquet").unlink()

    out = run("check", job.path, code=1).stdout

    assert "NOT OK  source" in out
    assert "holds no readable batch" in out


def test_check_names_an_unreadable_batch(job):
    (job.folder / "raw" / "b.parquet").write_bytes(b"no Parquet at all")

    out = run("check", job.path, code=1).stdout

    assert "NOT OK  batch" in out
    assert "b.parquet" in out


def test_check_refuses_the_destination_of_another_export(job):
    job.configure(window=None)
    run("export", job.path)
    job.configure(window=None, name="others")

    assert "belongs to another export" in complaint("check", job.path, code=2)


def test_check_prints_the_schema_of_a_config():
    document = json.loads(run("check", "--schema").stdout)

    sample = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text())
    assert set(sample) <= set(document["properties"])


def test_check_without_a_config_is_wrong_usage():
    assert "CONFIG" in run("check", code=2).stderr


def test_verify_of_what_was_exported_is_ok(job):
    job.configure(window=None)
    run("export", job.path)

    assert "all as committed" in run("verify", job.path).stdout
    assert "bytes read and hashed; all as committed" in run("verify", job.path, "--deep").stdout


def test_verify_finds_a_truncated_part(job):
    job.configure(window=None)
    run("export", job.path)
    part = job.parts()[0]
    part.write_bytes(part.read_bytes()[:-1])

    out = run("verify", job.path, code=1).stdout

    assert part.name in out
    assert "its manifest says" in out
    assert "1 problem" in out


def test_verify_finds_a_part_that_is_gone(job):
    job.configure(window=None)
    run("export", job.path)
    part = job.parts()[0]
    part.unlink()

    out = run("verify", job.path, code=1).stdout

    assert f"{part.name} is gone (window all)" in out


def test_only_a_deep_verify_finds_an_altered_part(job):
    job.configure(window=None)
    run("export", job.path)
    part = job.parts()[0]
    data = bytearray(part.read_bytes())
    data[-1] ^= 1
    part.write_bytes(data)

    assert "all as committed" in run("verify", job.path).stdout
    assert "other bytes than its manifest says" in run("verify", job.path, "--deep", code=1).stdout


def test_verify_counts_stray_parts_as_no_fault(job):
    job.configure(window=None)
    run("export", job.path)
    part = next((job.destination / "data").rglob("*.jsonl.gz"))
    part.with_name(part.name.replace("-00000.", "-00009.")).write_bytes(b"")

    assert "1 part under data/ not in any newest manifest" in run("verify", job.path).stdout


def test_verify_as_json_lists_problems(job):
    job.configure(window=None)
    run("export", job.path)
    job.parts()[0].unlink()

    document = json.loads(run("verify", job.path, "--json", code=1).stdout)

    assert len(document["problems"]) == 1
    assert document["parts"] == 2


def test_demo_exports_the_sample_and_prints_a_record(tmp_path):
    out = run("demo", "--to", tmp_path / "demo").stdout

    assert "Export demo: " in out
    record = json.loads(out.split("The first record:\n", 1)[1])
    assert list(record) == ["input", "output", "tags"]
    assert list((tmp_path / "demo" / "data").glob("date=*/model=*/*.jsonl.gz"))


def test_demo_goes_to_an_empty_folder_and_again_to_its_own(tmp_path):
    assert "Export demo: " in run("demo", "--to", tmp_path).stdout

    assert "Nothing to do" in run("demo", "--to", tmp_path).stdout


def test_demo_leaves_a_folder_of_other_things_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")

    for place, said in ((tmp_path, "holds notes.txt"), (tmp_path / "notes.txt", "is a file")):
        stderr = complaint("demo", "--to", place, code=2)
        assert f"--to: {place} {said}" in stderr
        assert "name a new or empty folder" in stderr
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_demo_leaves_the_destination_of_another_export_alone(job):
    run("export", job.path, "--start", "2024-06-01", "--end", "2024-06-02")

    assert "belongs to another export" in complaint("demo", "--to", job.destination, code=2)


@pytest.mark.parametrize("command", ["export", "plan"])
def test_where_without_another_destination_is_refused(job, command):
    assert "where needs another destination (--to)" in complaint(
        command, job.path, "--where", "true", code=2
    )
    assert not job.destination.exists()


def test_preview_of_a_slice_needs_no_destination_of_its_own(job):
    run("export", job.path)

    assert run("preview", job.path, "--where", "model = 'gpt-4o-mini'", "-n", "1").stdout
    complaint("preview", job.path, "--where", "modle = 'a'", code=2)


def test_where_with_another_destination_exports_the_slice(job, monkeypatch):
    monkeypatch.chdir(job.folder)
    job.configure(window=None)

    run("export", job.path, "--to", "slice", "--where", "model = 'gpt-4o-mini'")

    assert len(job.records(job.folder / "slice")) == 1
    assert not job.destination.exists()


@pytest.mark.parametrize("batches", [True, False], ids=["with-batches", "without"])
@pytest.mark.parametrize(
    "where",
    [
        "(select count(*) from read_text('/etc/hosts')) > 0",
        "read_text('/etc/hosts') is not null",
        "exists (select 1)",
        "true; drop table events",
        "true -- and nothing else",
        "true /* hidden */",
        "requested_at < now()",
        "random() < 0.5",
        "getenv('HOME') = ''",
        "true) or (true",
        "",
        "1",
    ],
)
def test_hostile_condition_is_wrong_usage(job, where, batches):
    if not batches:
        (job.folder / "raw" / "a.parquet").unlink()

    complaint("export", job.path, "--to", job.folder / "slice", "--where", where, code=2)

    assert not (job.folder / "slice").exists()


def test_unknown_field_of_a_condition_names_the_nearest(job):
    stderr = complaint(
        "export", job.path, "--to", job.folder / "slice", "--where", "modle = 'a'", code=2
    )

    assert "modle" in stderr
    assert "model" in stderr
    assert not (job.folder / "slice").exists()


def test_source_without_batches_is_no_failure(job):
    (job.folder / "raw" / "a.parquet").unlink()

    raw = job.folder / "raw"
    for command in ("export", "plan"):
        assert run(command, job.path).stdout == (
            f"No batch at {raw}, as nothing at all lies under {raw}: nothing to do.\n"
        )


def test_source_folder_that_is_mistyped_is_told_and_no_failure(job):
    job.configure(source={"url": "rwa", "preset": "generic"})

    for command in ("export", "plan", "status"):
        assert f"{job.folder}/rwa does not exist" in run(command, job.path).stdout
    assert "does not exist" in complaint("export", job.path, "--require-data", code=1)


def test_source_without_batches_fails_when_data_is_required(job):
    (job.folder / "raw" / "a.parquet").unlink()

    assert "holds no batch" in complaint("export", job.path, "--require-data", code=1)


def test_wrong_config_is_wrong_usage(job):
    job.configure(partition_bye=["date"], threads="many")

    stderr = complaint("export", job.path, code=2)

    assert f"{job.path}: partition_bye: unknown key" in stderr
    assert "threads" in stderr


def test_config_that_is_not_there_is_wrong_usage(tmp_path):
    assert "none.yaml" in complaint("plan", tmp_path / "none.yaml", code=2)


def test_too_many_rejects_fail_the_run(job):
    job.configure(window=None)
    job.put("b.parquet", events([{"id": "x", "request": "{"}]))

    stderr = complaint("export", job.path, code=1)

    assert "max_reject_ratio" in stderr
    assert "b.parquet row 0" in stderr
    assert "0 windows" in run("verify", job.path, code=1).stdout


def test_failed_window_is_told_apart_from_committed_ones(job):
    later = FIRST_DAY + timedelta(days=1)
    job.put("b.parquet", events([{"id": "x", "request": "{", "requested_at": later}]))

    result = run("export", job.path, "--start", "2024-06-01", "--end", "2024-06-03", code=1)

    assert "1 committed" in result.stdout
    assert "FAILED          20240602T000000Z" in result.stdout
    assert "1 window, 1 part, 2 records" in run("verify", job.path).stdout


def test_batch_that_is_gone_leaves_its_window_alone_but_for_a_rebuild(job):
    job.configure(window=None)
    job.put("b.parquet", events([{"id": "x"}]))
    run("export", job.path)
    (job.folder / "raw" / "b.parquet").unlink()

    assert "source expired" in run("export", job.path, "--force").stdout
    assert "a rebuild loses 1 event" in run("plan", job.path, "--force").stdout
    rebuilt = run("export", job.path, "--force", "--rebuild-from-remaining").stdout
    assert "3 read, 3 exported" in rebuilt


def test_debug_shows_the_traceback_and_keeps_the_exit_code(job):
    job.configure(threads="many")

    stderr = run("export", job.path, "--debug", code=2).stderr

    assert "Traceback" in stderr
    assert "ConfigError" in stderr


def test_debug_of_a_run_on_s3_shows_no_credential(job, s3_site):
    token = "session-token-that-nobody-may-read"  # noqa: S105 - a made-up one
    s3_site.put("a.parquet", write_batch(events([{}])))
    job.configure(
        source={"url": s3_site.source_url, "preset": "generic"},
        destination={"url": s3_site.destination_url},
    )
    command = [sys.executable, "-m", "pipelines", "export", job.path, "--debug"]
    environment = os.environ | {"AWS_SESSION_TOKEN": token}

    done = subprocess.run(  # noqa: S603 - our own command
        command, env=environment, capture_output=True, text=True, check=False
    )

    assert "Traceback" in done.stderr
    assert token not in done.stderr + done.stdout
    assert s3_site.server.admin.secret_key not in done.stderr + done.stdout


def test_no_command_is_wrong_usage_with_help():
    assert "Usage" in run(code=2).output


def test_unknown_option_is_wrong_usage(job):
    assert "--frce" in run("export", job.path, "--frce", code=2).stderr


def supersede(job):
    """Commit two generations of one window; return the parts of the first, made a day old."""
    job.configure(window=None)
    run("export", job.path)
    parts = job.parts()
    job.configure(window=None, where="model = 'gpt-4o'")
    run("export", job.path)
    for path in job.destination.rglob("*.*"):
        os.utime(path, (0, 0))
    return parts


def test_gc_is_dry_without_delete(job):
    parts = supersede(job)
    before = job.parts()

    out = run("gc", job.path).stdout

    assert out.startswith(f"Would remove {len(parts)} objects that no kept generation names, ")
    assert f"  data/date=2024-06-01/{parts[0].name}" in out
    assert out.endswith("Nothing was removed; --delete removes it.\n")
    assert job.parts() == before


def test_gc_removes_with_delete_and_then_finds_nothing(job):
    parts = supersede(job)

    out = run("gc", job.path, "--delete").stdout

    assert out.startswith(f"Removed {len(parts)} objects")
    assert not set(parts) & set(job.parts())
    assert run("gc", job.path).stdout == "No garbage: nothing to remove.\n"
    run("verify", job.path, "--deep")


def test_gc_prints_one_json_object(job):
    parts = supersede(job)
    (job.destination / "data/notes.txt").write_text("mine")

    found = json.loads(run("gc", job.path, "--json").stdout)

    assert (found["deleted"], len(found["objects"])) == (False, len(parts))
    assert found["bytes"] == sum(path.stat().st_size for path in parts)
    assert (found["unfinished_uploads"], found["foreign"]) == (0, ["data/notes.txt"])


def test_gc_tells_of_uploads_and_of_objects_that_are_not_ours(job):
    supersede(job)
    for number in range(7):
        (job.destination / f"data/{number}.txt").write_text("mine")
    unfinished = job.destination / "_meta/tmp/1-2"
    unfinished.write_text("half")
    os.utime(unfinished, (0, 0))

    out = run("gc", job.path, "--delete").stdout

    assert "Removed 1 unfinished upload.\n" in out
    assert "Left alone: 7 objects that this package did not name:\n  data/0.txt\n" in out
    assert "  … and 2 more (all of them with --json)\n" in out
    assert not unfinished.exists()


def test_gc_takes_another_grace_and_destination(job):
    supersede(job)
    job.configure(window=None)

    assert "nothing to remove" in run("gc", job.path, "--grace", "9999w").stdout
    assert "nothing to remove" in run("gc", job.path, "--to", job.folder / "else").stdout


@pytest.mark.parametrize("grace", ["0h", "soon"])
def test_gc_explains_a_wrong_grace(job, grace):
    assert f"--grace: '{grace}' is not a duration" in complaint(
        "gc", job.path, "--grace", grace, code=2
    )


def test_gc_of_another_exports_destination_is_refused(job):
    parts = supersede(job)
    job.configure(name="other", window=None)

    assert "belongs to another export" in complaint("gc", job.path, "--delete", code=2)
    assert set(parts) <= set(job.parts())


def test_strict_commit_of_the_command_line_reaches_the_config(job):
    job.configure(window=None)

    run("export", job.path, "--strict-commit")

    (manifest,) = job.destination.glob("_meta/manifests/all/*.json")
    destination = json.loads(manifest.read_bytes())["export"]["config"]["destination"]
    assert destination["strict_commit"] is True


@pytest.mark.parametrize("command", COMMANDS)
def test_command_has_help_for_itself_and_every_option(command):
    parameters = typer.main.get_group(app).commands[command].params

    assert run(command, "--help").stdout.strip()
    assert typer.main.get_group(app).commands[command].help
    assert all(getattr(parameter, "help", "") for parameter in parameters)


def test_help_cuts_no_sentence_at_80_columns():
    out = run("--help").stdout

    assert all(f"\n  {command} " in out for command in COMMANDS)
    assert "..." not in out.partition("Commands:")[2]
    assert max(map(len, out.splitlines())) <= 80


def test_version_names_the_package_and_its_engines_without_importing_them():
    code = (
        "import sys\nfrom pipelines.cli import main\nsys.argv[1:] = ['--version']\n"
        "try:\n    main()\nfinally:\n    print({'duckdb', 'pyarrow'} & sys.modules.keys())"
    )

    done = subprocess.run(  # noqa: S603 - this package
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines() == [
        f"{PACKAGE} {package_version()}",
        f"duckdb {version('duckdb')}",
        f"pyarrow {version('pyarrow')}",
        "set()",
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_command_stands_in_the_readme(command):
    assert f"request-logs {command}" in README.read_text("utf-8")


def single_options():
    """Each option of each command that takes one value."""
    return [
        pytest.param(command, parameter.opts[-1], id=f"{command}{parameter.opts[-1]}")
        for command in COMMANDS
        for parameter in typer.main.get_group(app).commands[command].params
        if isinstance(parameter, TyperOption)
        if not parameter.is_flag and not parameter.multiple
    ]


@pytest.mark.parametrize(("command", "option"), single_options())
def test_an_option_of_one_value_is_refused_twice(command, option):
    stderr = run(command, "export.yaml", option, "1", f"{option}=2", code=2).stderr

    assert f"'{option}'" in stderr.replace("-n' / '", "")
    assert "given 2 times; give it once" in stderr


def test_flags_and_lists_may_stand_there_twice(job):
    run("plan", job.path, "--json", "--json")
    several = ("--tag", "a=1", "--tag", "b=2", "--prune", "x", "--prune", "y")

    assert (
        "give it once" not in run("pull", "none.yaml", "--to", job.folder, *several, code=2).stderr
    )


def start(job, *arguments):
    return subprocess.Popen(  # noqa: S603 - this package
        [sys.executable, "-m", "pipelines", *arguments, str(job.path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_module_runs_as_the_command(job):
    job.configure(window=None)

    with start(job, "export") as process:
        out, _ = process.communicate(timeout=60)

    assert process.returncode == 0
    assert "3 read, 3 exported" in out


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        pytest.param(signal.SIGINT, 130, id="interrupted"),
        pytest.param(signal.SIGTERM, 143, id="terminated"),
    ],
)
def test_stopped_export_says_so_and_the_next_finishes(job, sent, code):
    days = 60
    rows = [{"requested_at": FIRST_DAY + timedelta(days=day)} for day in range(days)]
    job.put("a.parquet", events(rows * 50))
    job.configure(
        window={"every": "1d", "start": "2024-06-01"},
        source={"url": "raw", "preset": "generic", "mapping": {"id": {"expression": "null"}}},
    )
    manifests = job.destination / "_meta" / "manifests"

    with start(job, "export") as process:
        while process.poll() is None and not list(manifests.glob("*/*.json")):
            pass
        process.send_signal(sent)
        _, stderr = process.communicate(timeout=60)

    assert process.returncode == code
    assert "stopped; what was committed before stays" in stderr
    assert "Traceback" not in stderr
    committed = list(manifests.rglob("*.json"))
    assert 0 < len(committed) < days
    assert all(json.loads(path.read_bytes())["export"]["generation"] == 1 for path in committed)
    span = ("--start", "2024-06-01", "--end", f"{FIRST_DAY + timedelta(days=days):%Y-%m-%d}")
    summary = json.loads(run("export", job.path, *span, "--json").stdout)
    assert summary["committed"] == days - len(committed)
    assert "all as committed" in run("verify", job.path, "--deep").stdout
    assert len(summary["data_files"]) == days
