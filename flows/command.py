"""What `python -m flows.export` does: run the flow here, on a server of its own, and print.

Prefect is imported inside `main`, after the environment is set.
"""

import argparse
import atexit
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from pipelines.config import load_config
from pipelines.errors import PipelineError
from pipelines.manifest import Ledger
from pipelines.report import describe_run, first_record, pretty_record
from pipelines.summary import ExportSummary, WindowSummary

DEFAULTS = {
    # On a new PREFECT_HOME the server makes its tables first, which takes longer than the 20 s
    # that Prefect gives it.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # The server keeps Prefect's logs, tracebacks too; the terminal gets a paragraph.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
}


def run() -> NoReturn:
    """Run `main` and end the process with its exit code."""
    codes = [1]
    # Registered before Prefect's handlers, so it runs after them. Prefect's daemon threads keep
    # DuckDB objects alive to the end, for which nanobind would print a page about leaks.
    atexit.register(_leave, codes)
    try:
        codes[0] = main()
    except SystemExit as exc:
        codes[0] = exc.code if isinstance(exc.code, int) else 1
    raise SystemExit(codes[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the flow and print what it did; return the exit code: 0 done, 1 failed, 2 bad config."""
    options = _parse(arguments)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    # The server is stopped when the interpreter ends, which a plain SIGTERM would prevent.
    signal.signal(signal.SIGTERM, _exit)
    try:
        config = load_config(options.config)  # before the slow start of Prefect
        return _run(options, config.destination.storage_options)
    except PipelineError as exc:
        return _complain(str(exc), exc.exit_code)
    except KeyboardInterrupt:
        return _complain("stopped; windows that were committed stay, nothing else was", 130)


def _run(options: argparse.Namespace, storage_options: dict[str, Any]) -> int:
    if not os.environ.get("PREFECT_API_URL"):
        _say("starting Prefect's own server, which takes a quarter of a minute …")
    from flows.export import export_request_logs  # noqa: PLC0415 - see above
    from flows.runs import WindowsFailedError  # noqa: PLC0415

    try:
        state = export_request_logs(
            options.config,
            start=options.start,
            end=options.end,
            force=options.force,
            return_state=True,
        )
        result: Any = state.result(raise_on_failure=False)
    except RuntimeError as exc:
        return _complain(f"Prefect cannot run the flow: {exc}", 1)
    failure = ""
    if isinstance(result, WindowsFailedError):
        failure, result = str(result), result.summary
    elif isinstance(result, PipelineError):
        raise result
    elif isinstance(result, BaseException):
        return _complain(f"unexpected {type(result).__name__}: {result}", 1)
    summary = _summary(result)
    _print(describe_run(summary))
    record = first_record(summary, storage_options)
    if record is not None:
        _print(["", "The first record:", pretty_record(record)])
    return _complain(failure, 1) if failure else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m flows.export", description="Run one export as a Prefect flow, here and now."
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="YAML file of one export")
    parser.add_argument(
        "--start", type=_instant, help="first instant, on the window grid; ISO 8601, UTC"
    )
    parser.add_argument("--end", type=_instant, help="instant after the last, on the window grid")
    parser.add_argument("--force", action="store_true", help="write windows again")
    return parser.parse_args(arguments)


def _instant(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{text!r} is no date or ISO 8601 time") from exc


def _summary(plain: dict[str, Any]) -> ExportSummary:
    """The summary that ExportSummary.as_dict() made plain."""
    windows = (
        WindowSummary(**{**window, "ledger": Ledger(**window["ledger"])})
        for window in plain["windows"]
    )
    return ExportSummary(
        plain["export"],
        plain["destination"],
        plain["source"],
        plain["batches"],
        tuple(windows),
        tuple(plain["unreadable"]),
        plain["why_empty"],
    )


def _leave(codes: Sequence[int]) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(codes[0])  # skips nothing but the interpreter's own clearing up


def _exit(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(143)


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")


def _say(message: str) -> None:
    sys.stderr.write(f"flows.export: {message}\n")
    sys.stderr.flush()


def _complain(message: str, code: int) -> int:
    sys.stdout.flush()
    _say(message)
    return code
