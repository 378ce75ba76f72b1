"""Where shards run: processes of this machine or any executor, windows side by side."""

import json
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import nullcontext
from datetime import timedelta
from itertools import groupby
from pathlib import Path

import pytest

import pipelines.executors
import pipelines.export
import pipelines.plan
import pipelines.processes
from pipelines.errand import Reports, check_versions, pack, run_errand, versions
from pipelines.errors import ContractError, ExecutorError, QualityError, UnexpectedError
from pipelines.executors import Workers
from pipelines.export import run_export
from pipelines.plan import plan_export
from pipelines.processes import ProcessExecutor, count_workers, usable_memory
from pipelines.scratch import _PREFIX
from pipelines.shard import run_shard
from tests.builders import NOW, events, export, make_config, read_records, write_batch
from tests.many import NOON, call, many_config, put_many, written_bytes
from tests.processes import Process

ROOT = Path(__file__).parents[1]
DAY = timedelta(days=1)
DAYS = 6


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(pipelines.plan, "SHARD_BYTES", 40_000)


def put_large(site, repeats=1):
    """Batches of 20,000 events, of which a shard takes many reads, as often as wanted."""
    rows = events({"id": None, "response": json.dumps("x" * 3000)} for _ in range(5000))
    batch = write_batch(rows, row_group_size=1000)
    for number in range(4 * repeats):
        site.put(f"{number}.parquet", batch)


def put_days(site, days=DAYS):
    for day in range(days):
        rows = [call(f"{day}-{number}", NOON + day * DAY) for number in range(20)]
        site.put(f"{day}.parquet", write_batch(rows))


def days_config(site, destination="", **changes):
    there = {"url": f"{site.destination_url}{destination}"}
    return make_config(site, window={"every": "1d"}, destination=there, **changes)


def children():
    """Worker processes of this process that have not ended."""
    return [process for process in multiprocessing.active_children() if process.is_alive()]


@pytest.mark.usefixtures("small_shards")
def test_processes_write_what_one_thread_writes(site):
    put_many(site)
    alone = export(many_config(site, "-alone", executor="threads", threads=1))

    export(many_config(site, "-many", workers=4 if site.kind == "file" else 2))

    assert written_bytes(site, "-alone") == written_bytes(site, "-many")
    assert len({Path(url).name.split("-")[2] for url in alone.data_files}) > 2
    assert children() == []


class Backwards(Executor):
    """Runs what it is given when the first result is wanted, the last call first."""

    def __init__(self):
        self._calls = []

    def submit(self, fn, /, *args, **kwargs):
        future = _Wanted(self)
        self._calls.append((future, fn, args, kwargs))
        return future

    def run(self):
        while self._calls:
            future, fn, args, kwargs = self._calls.pop()
            future.set_result(fn(*args, **kwargs))


class _Wanted(Future):
    def __init__(self, executor):
        super().__init__()
        self._executor = executor

    def result(self, timeout=None):
        self._executor.run()
        return super().result(timeout)


@pytest.mark.usefixtures("small_shards")
def test_order_of_completion_alters_no_byte(file_site):
    put_many(file_site)
    export(many_config(file_site, "-alone", executor="threads"))

    export(many_config(file_site, "-backwards"), executor=Backwards())

    assert written_bytes(file_site, "-alone") == written_bytes(file_site, "-backwards")


@pytest.mark.usefixtures("small_shards")
def test_order_over_a_window_is_the_same_in_processes(file_site):
    put_many(file_site)
    settings = {"order_by": "requested_at desc", "remove_duplicates": "input"}
    export(many_config(file_site, "-alone", executor="threads", **settings))

    export(many_config(file_site, "-2", workers=2, **settings))

    assert written_bytes(file_site, "-alone") == written_bytes(file_site, "-2")


def test_windows_side_by_side_are_summed_up_in_order(file_site):
    put_days(file_site)
    export(days_config(file_site, "-alone", executor="threads"))

    done = export(days_config(file_site, workers=2))

    assert [window.status for window in done.windows] == ["committed"] * len(done.windows)
    assert [window.window for window in done.windows] == sorted(w.window for w in done.windows)
    assert written_bytes(file_site) == written_bytes(file_site, "-alone")


def test_a_window_that_fails_beside_others_stops_none(file_site):
    put_days(file_site)
    bad = [call("bad", NOON + 2 * DAY, response="{broken")]
    file_site.put("bad.parquet", write_batch(bad * 9))

    done = run_export(days_config(file_site, workers=2, max_reject_ratio=0.0), now=NOW)

    assert len(done.written) == len(done.windows) - 1
    assert "1 of 29 events" in done.failed[0].error
    assert len(read_records(file_site)) == 20 * (DAYS - 1)


@pytest.mark.usefixtures("small_shards")
def test_shards_of_a_killed_process_run_again(file_site, caplog):
    put_large(file_site)
    export(make_config(file_site, executor="threads"))
    told: list[int] = []

    def kill_once(events, _line_bytes):
        if not told:
            os.kill(children()[0].pid, signal.SIGKILL)
        told.append(events)

    there = {"url": f"{file_site.destination_url}-2"}
    done = run_export(
        make_config(file_site, destination=there, workers=2), now=NOW, progress=kill_once
    )

    assert not done.failed
    assert sum(told) == 20_000
    assert written_bytes(file_site) == written_bytes(file_site, "-2")
    assert "a worker process was killed; its shard runs again" in caplog.text
    assert children() == []


@pytest.mark.usefixtures("small_shards")
def test_a_shard_that_kills_its_process_each_time_ends_the_window(file_site):
    put_large(file_site)

    def kill_each(_events, _line_bytes):
        for process in children():
            os.kill(process.pid, signal.SIGKILL)

    done = run_export(make_config(file_site, workers=2), now=NOW, progress=kill_each)

    assert "3 worker processes ended before one shard was done" in done.failed[0].error
    assert "lower workers" in done.failed[0].error
    assert children() == []


def test_a_call_that_is_cancelled_is_not_begun():
    with ProcessExecutor(1, lambda *_: None) as pool:
        running = [pool.submit(time.sleep, 0.5) for _ in range(3)]
        waiting = pool.submit(time.sleep, 600)

        assert waiting.cancel()

    assert all(future.result() is None for future in running)


def test_a_stopped_pool_cancels_what_waits_and_ends_what_runs():
    pool = ProcessExecutor(1, lambda *_: None)
    ready = pool.submit(os.getpid)
    ready.result()
    calls = [pool.submit(time.sleep, 600) for _ in range(4)]
    wait_until(calls[0].running)

    pool.stop()
    pool.shutdown()

    with pytest.raises(ExecutorError, match="the run was stopped"):
        calls[0].result()
    assert all(future.cancelled() for future in calls[1:])
    with pytest.raises(ExecutorError, match="the run was stopped"):
        pool.submit(time.sleep, 600)
    assert children() == []


def kill_oneself():
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_call_that_kills_its_process_fails_alone():
    with ProcessExecutor(2, lambda *_: None) as pool:
        good = [pool.submit(abs, -number) for number in range(4)]
        bad = pool.submit(kill_oneself)
        good += [pool.submit(abs, -number) for number in range(4, 8)]

        assert [future.result() for future in good] == list(range(8))
        with pytest.raises(ExecutorError, match="3 worker processes ended"):
            bad.result()


def large_result(marker):
    """Much to send; the first time the process is killed in the midst of sending it."""
    if not Path(marker).exists():
        Path(marker).touch()
        threading.Timer(0.02, kill_oneself).start()
    return b"x" * 300_000_000


def test_a_process_that_is_killed_while_it_sends_is_replaced(tmp_path):
    with ProcessExecutor(1, lambda *_: None) as pool:
        assert len(pool.submit(large_result, str(tmp_path / "begun")).result()) == 300_000_000


def test_calls_that_are_cancelled_harm_no_other_when_a_process_is_killed():
    with ProcessExecutor(1, lambda *_: None) as pool:
        pool.submit(abs, 1).result()
        calls = [pool.submit(time.sleep, 0.2) for _ in range(4)]
        assert all(future.cancel() for future in calls[1:])
        last = pool.submit(abs, -1)
        children()[0].kill()

        assert last.result() == 1


def unpicklable():
    return lambda: None


def test_a_result_that_cannot_be_sent_is_an_error():
    with (
        ProcessExecutor(1, lambda *_: None) as pool,
        pytest.raises(ExecutorError, match="cannot be read"),
    ):
        pool.submit(unpicklable).result()


PROGRAM = """
import sys
from datetime import UTC, datetime
from pathlib import Path
import pipelines.plan
from pipelines.config import load_config
from pipelines.export import run_export

pipelines.plan.SHARD_BYTES = 40_000
print("begun", flush=True)
told = []
def tell(events, line_bytes):
    if not told:
        print("under way", flush=True)
    told.append(events)
done = run_export(load_config(Path(sys.argv[1])), now=datetime.now(UTC), progress=tell)
print(len(done.written), "written", flush=True)
"""


def start_program(site, folder):
    """Start a script without a guard that exports with two processes; it writes to its log."""
    config, script = folder / "export.yaml", folder / "script.py"
    places = {"source": {"url": site.source_url}, "destination": {"url": site.destination_url}}
    config.write_text(json.dumps({"name": "test-export", **places, "workers": 2}))
    script.write_text(PROGRAM)
    scratch = folder / "scratch"
    scratch.mkdir()
    env = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(scratch)}
    return Process(
        [sys.executable, str(script), str(config)], cwd=folder, env=env, log=folder / "log"
    )


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_script_without_a_guard_runs_once(file_site, tmp_path):
    put_large(file_site)

    with start_program(file_site, tmp_path) as process:
        wait_until(lambda: process.ended)

    lines = (tmp_path / "log").read_text().splitlines()
    assert lines == ["begun", "under way", "1 written"]


def test_workers_end_with_a_run_that_is_killed(file_site, tmp_path):
    put_large(file_site, 8)

    with start_program(file_site, tmp_path) as process:
        wait_until(lambda: "under way" in (tmp_path / "log").read_text())
        workers = [pid for pid in process.pids() if pid != process.pid]
        os.kill(process.pid, signal.SIGKILL)
        wait_until(lambda: not process.pids())

    assert len(workers) >= 2
    assert export(make_config(file_site)).written


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["interrupt", "terminate"])
def test_a_run_that_is_stopped_leaves_no_worker_and_no_folder(file_site, tmp_path, number):
    put_large(file_site, 8)
    handler = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"

    with start_program(file_site, tmp_path) as process:
        (tmp_path / "script.py").write_text(handler + PROGRAM)
        wait_until(lambda: "under way" in (tmp_path / "log").read_text())
        os.kill(process.pid, number)
        wait_until(lambda: not process.pids())

    assert "written" not in (tmp_path / "log").read_text()
    assert list((tmp_path / "scratch").glob(f"{_PREFIX}*")) == []


def contract_error(_work):
    raise ContractError("column x is not there", batch="b", column="x")


def quoting_error(_work):
    raise ValueError("an event says: secret")


def test_errors_of_this_package_come_back_as_they_are(file_site):
    with ProcessExecutor(1, lambda *_: None) as pool:
        (work,) = plan_works(file_site)
        future = pool.submit(run_errand, versions(), pack(contract_error, work), 1, None)

        with pytest.raises(ContractError, match=r"^column x is not there$") as raised:
            future.result()

    assert (raised.value.batch, raised.value.column) == ("b", "x")


def test_other_errors_come_back_without_their_text(file_site):
    (work,) = plan_works(file_site)

    with pytest.raises(UnexpectedError) as raised:
        run_errand(versions(), pack(quoting_error, work), 1, None)

    assert "ValueError at pipelines/errand.py:" in str(raised.value)
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None


def plan_works(site):
    put_days(site, 1)
    plan = plan_export(make_config(site), now=NOW)
    return plan.shard_works(plan.windows[0])


@pytest.mark.parametrize(
    ("there", "said"),
    [
        pytest.param({"duckdb": "1.0"}, "w has duckdb 1.0, and this run 2.0", id="older"),
        pytest.param({"duckdb": ""}, "w has no duckdb installed, and this run 2.0", id="absent"),
    ],
)
def test_another_version_of_what_makes_the_bytes_is_refused(there, said):
    with pytest.raises(ExecutorError, match=said):
        check_versions({"duckdb": "2.0"}, there, "w")


def test_a_shard_that_runs_again_tells_nothing_twice():
    told = []
    reports = Reports()
    number = reports.open(lambda events, size: told.append((events, size)))

    for events_so_far in (10, 30, 5, 20, 40):
        reports.take(number, events_so_far, events_so_far * 2)
    reports.close(number, 50, 100)
    reports.take(number, 60, 120)

    assert told == [(10, 20), (20, 40), (10, 20), (10, 20)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({}, (4, 2), id="share-of-the-cores"),
        pytest.param({"useful": 1}, (1, 8), id="one-shard-has-all"),
        pytest.param({"useful": 3}, (3, 2), id="few-shards"),
        pytest.param({"threads": 4}, (2, 4), id="threads-given"),
        pytest.param({"threads": 16}, (1, 16), id="more-threads-than-cores"),
        pytest.param({"asked": 8}, (8, 1), id="workers-given"),
        pytest.param({"asked": 16, "useful": 99}, (16, 1), id="more-workers-than-cores"),
        pytest.param({"memory_limit": 6 * 1024**3}, (2, 4), id="little-memory"),
        pytest.param({"memory_limit": 99 * 1024**3}, (1, 8), id="no-memory"),
    ],
)
def test_processes_and_threads_fit_cores_memory_and_work(monkeypatch, settings, expected):
    monkeypatch.setattr(pipelines.processes, "usable_cores", lambda: 8)
    monkeypatch.setattr(pipelines.processes, "usable_memory", lambda: 16 * 1024**3)
    given = {"threads": None, "memory_limit": 1024**3, "asked": None, "useful": 9, **settings}

    assert count_workers(**given) == expected


@pytest.mark.parametrize(
    ("text", "limited"),
    [("max\n", False), ("1000000\n", True), ("99999999999999999\n", False), ("", False)],
)
def test_memory_of_a_container_counts(tmp_path, text, limited):
    (tmp_path / "memory.max").write_text(text)

    found = usable_memory(tmp_path / "memory.max")

    assert (found == 1_000_000) is limited
    assert usable_memory(tmp_path / "nothing") > 1_000_000


def test_little_work_starts_no_process(file_site, monkeypatch):
    monkeypatch.setattr(pipelines.processes, "usable_cores", lambda: 8)
    monkeypatch.setattr(pipelines.executors, "ProcessExecutor", None)  # it would not be called
    put_days(file_site)

    assert export(days_config(file_site)).written


def test_windows_at_once_are_enough_for_every_worker(file_site, monkeypatch):
    put_days(file_site)
    plan = plan_export(days_config(file_site), now=NOW)
    windows = len(plan.to_do)

    def at_once(workers):
        return Workers(Backwards(), at_once=lambda: workers).windows_at_once(plan)

    assert [at_once(1), at_once(3), at_once(99)] == [2, 6, min(32, windows)]
    assert Workers(Backwards()).windows_at_once(plan) == 1
    monkeypatch.setattr(pipelines.plan, "SHARD_BYTES", 100)  # many shards a window
    assert at_once(3) == 2


class Recording(ThreadPoolExecutor):
    """Notes of which window each shard is that it is given to write."""

    def __init__(self, workers):
        super().__init__(workers)
        self.windows = []

    def submit(self, fn, /, *args, **kwargs):
        function, work = pickle.loads(args[1])[:2]  # noqa: S301 - our own
        if function is run_shard:  # ids are listed in turns of their own
            self.windows.append(work.window)
        return super().submit(fn, *args, **kwargs)


def test_a_window_gives_out_all_its_shards_before_the_next_begins(file_site, monkeypatch):
    monkeypatch.setattr(pipelines.plan, "SHARD_BYTES", 1000)
    rows = [call(f"{n}", NOON + (n % 3) * DAY) for n in range(90)]
    file_site.put("a.parquet", write_batch(rows, row_group_size=10))
    plan = plan_export(days_config(file_site), now=NOW)

    with Recording(2) as pool:
        workers = Workers(pool, at_once=lambda: 2)
        monkeypatch.setattr(pipelines.export, "open_workers", lambda *_: nullcontext(workers))
        done = run_export(days_config(file_site), now=NOW)

    assert not done.failed
    assert len(pool.windows) > len(plan.to_do)
    assert [window for window, _ in groupby(pool.windows)] == list(dict.fromkeys(pool.windows))


def test_an_error_of_one_shard_calls_off_the_others(file_site, monkeypatch):
    monkeypatch.setattr(pipelines.plan, "SHARD_BYTES", 1000)
    put_days(file_site, 4)

    class Failing(Executor):
        def __init__(self):
            self.futures = []

        def submit(self, _fn, /, *_args, **_kwargs):
            self.futures.append(Future())
            if len(self.futures) == 1:
                self.futures[0].set_exception(QualityError("no"))
            return self.futures[-1]

    executor = Failing()
    done = run_export(make_config(file_site), now=NOW, executor=executor)

    assert [window.error for window in done.failed] == ["no"]
    assert len(executor.futures) > 1
    assert all(future.cancelled() for future in executor.futures[1:])
