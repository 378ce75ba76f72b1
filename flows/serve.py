"""Deployments without a work pool: `python -m flows.serve configs/*.yaml --cron "10 * * * *"`.

Prefect's own files among them are passed over. Each config gets an export (scheduled where there is
a cron line, and for ad-hoc runs) and a backfill, and all of them one verification; the process
serves them until it is stopped.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from prefect import serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron, Schedule

from flows.backfill import backfill_request_logs
from flows.export import export_request_logs
from flows.verify import verify_exports
from pipelines.config import load_config
from pipelines.errors import ConfigError, PipelineError

TAGS = ["request-logs"]
# A run that waits finds what is due when its turn comes; one that is cancelled would leave what
# became due meanwhile to the next.
ONE_AT_A_TIME = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE)


def is_prefect_file(path: Path) -> bool:
    """Return whether a file is Prefect's own, which `configs/*.yaml` names too."""
    try:
        document = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, yaml.YAMLError):
        return False  # `load_config` says what is wrong
    return isinstance(document, dict) and bool({"deployments", "automations"} & document.keys())


def make_deployments(
    configs: Sequence[Path], *, cron: str | None, verify_cron: str | None
) -> list[RunnerDeployment]:
    """Return the deployments of some configs.

    Raises:
        ConfigError: a config or a schedule is wrong, or there is no config.
    """
    schedules = _schedule("--cron", cron), _schedule("--verify-cron", verify_cron)
    found: list[Any] = []  # to_deployment() gives a coroutine inside of an event loop alone
    paths = [str(path.resolve()) for path in configs if not is_prefect_file(path)]
    if not paths:
        raise ConfigError("no config of an export among these files, so there is nothing to serve")
    for path in paths:
        name = load_config(Path(path)).name
        for flow, kind, schedule in (
            (export_request_logs, "export", schedules[0]),
            (backfill_request_logs, "backfill", None),
        ):
            found.append(
                flow.to_deployment(
                    name=f"{name}-{kind}",
                    parameters={"config": path},
                    schedule=schedule,
                    concurrency_limit=ONE_AT_A_TIME,
                    tags=[*TAGS, name],
                    description=flow.description,
                )
            )
    found.append(
        verify_exports.to_deployment(
            name="served-verify",  # not that of configs/prefect.yaml, which it would take over
            parameters={"configs": paths},
            schedule=schedules[1],
            concurrency_limit=ONE_AT_A_TIME,
            tags=TAGS,
            description=verify_exports.description,
        )
    )
    return found


def _schedule(option: str, text: str | None) -> Schedule | None:
    if text is None:
        return None
    try:
        return Cron(text, timezone="UTC")
    except ValueError as exc:
        raise ConfigError(
            f"{option}: {text!r} is no cron line: five fields, minute, hour, day of the month, "
            f"month and day of the week, such as '10 * * * *'"
        ) from exc


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until stopped; return 2 for a wrong config or schedule."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.serve", description="Serve exports to a Prefect server, here."
    )
    parser.add_argument("configs", metavar="CONFIG", type=Path, nargs="+", help="YAML of an export")
    parser.add_argument("--cron", help="when to export, UTC, such as '10 * * * *'")
    parser.add_argument("--verify-cron", help="when to verify, UTC, such as '30 4 * * *'")
    parser.add_argument("--at-once", type=int, default=1, help="flow runs side by side")
    options = parser.parse_args(arguments)
    # configs/automations.yaml counts on it; the processes of runs inherit it.
    os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30")
    try:
        deployments = make_deployments(
            options.configs, cron=options.cron, verify_cron=options.verify_cron
        )
    except PipelineError as exc:
        sys.stderr.write(f"flows.serve: {exc}\n")
        return exc.exit_code
    serve(*deployments, limit=options.at_once)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
