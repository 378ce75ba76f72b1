import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines import interrupts
from pipelines.engine import connect
from pipelines.interrupts import stop_statements, wait_for

A_MOMENT = 0.3
ROOT = Path(__file__).parents[1]
ENDLESS = "select count(*) from range(10000000) a, range(10000000) b where a.range ^ b.range = 3"
SORTED = "select * from range(100000000000) order by md5(range::varchar)"
IN_MAIN_THREAD = """
    with connect(memory_limit=10**9, threads=1) as con, engine_errors("waiting"):
        print("running", flush=True)
        {statement}
"""
WITHOUT_WORDS = """
    with connect(memory_limit=10**9, threads=1) as con:
        print("running", flush=True)
        {statement}
"""
IN_A_THREAD = """
    def wait():
        with connect(memory_limit=10**9, threads=1) as con, engine_errors("waiting"):
            print("running", flush=True)
            {statement}
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(wait)
        try:
            future.result()
        except KeyboardInterrupt:
            stop_statements()
            raise
"""
PROGRAM = """
from concurrent.futures import ThreadPoolExecutor
from pipelines.engine import connect, engine_errors
from pipelines.interrupts import stop_statements
try:
{body}
except KeyboardInterrupt:
    print("stopped", flush=True)
    raise SystemExit(130)
"""


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(IN_MAIN_THREAD, id="main"),
        pytest.param(IN_A_THREAD, id="thread"),
        pytest.param(WITHOUT_WORDS, id="no-words-for-its-errors"),
    ],
)
@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(f"con.execute({ENDLESS!r}).fetchall()", id="execute"),
        pytest.param(f"list(con.sql({SORTED!r}).to_arrow_reader(2048))", id="arrow"),
    ],
)
def test_interrupt_ends_a_statement_that_would_run_for_days(body, statement):
    program = PROGRAM.format(body=body.format(statement=statement))

    with subprocess.Popen(  # noqa: S603 - this package
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        try:
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()

    assert out == "stopped\n"
    assert process.returncode == 130


def test_a_signal_at_the_end_of_a_statement_leaves_no_error_of_the_watch():
    ours, signals = socket.socketpair()
    with signals:
        ours.close()

        interrupts._watch(ours, threading.Event())  # noqa: SLF001 - its thread may be as late


def stopped_while_it_waits(request):
    """What a thread that waits for a request gets when its run is stopped."""
    waits = threading.Event()

    def wait():
        with connect(memory_limit=10**9, threads=1):
            waits.set()
            return wait_for(request)

    with ThreadPoolExecutor(1) as pool:
        thread = pool.submit(wait)
        waits.wait(60)
        stop_statements()
        return thread


def test_a_stopped_run_calls_off_a_request_that_hangs():
    request: Future[str] = Future()

    thread = stopped_while_it_waits(request)

    assert isinstance(thread.exception(), KeyboardInterrupt)
    assert request.cancelled()


def test_a_stopped_run_lets_a_request_end():
    request: Future[str] = Future()
    threading.Timer(A_MOMENT, request.set_result, ["done"]).start()

    thread = stopped_while_it_waits(request)

    assert thread.result() == "done"
