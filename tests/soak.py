"""Kill exports again and again, at random, and compare what is left with runs never killed.

    python -m tests.soak --kills 200 --seed 7 --store both

A round is one source and two destinations. News arrive at the source; one export of them is never
killed, the other is, up to three times in a row: by itself at a random passage of a random
boundary, or from outside at a random moment. Then it runs to its end. The seed decides all but
where a moment falls. Ends with 1 when a kill cost anything.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from signal import SIGKILL

from tests.aftermath import (
    DAYS,
    Generation,
    Verdict,
    crash_config,
    format_table,
    judge_finished,
    judge_killed,
    put_early,
    read_generations,
    write_events,
)
from tests.conftest import Site
from tests.crash import Job, count_passages, messages, run, start
from tests.s3_server import serve_s3

_MOMENT = "at a random moment"
_KILLS_IN_A_ROW = 3
_KILLS_IN_A_ROUND = 10
_ROUNDS_AT_ONCE = 2


@dataclass
class Round:
    """One source, an export of it that is never killed and one that is."""

    site: Site
    scratch: Path
    rng: random.Random
    environment: dict[str, str] = field(default_factory=dict)
    kills: list[tuple[str, Verdict]] = field(default_factory=list)
    states: list[dict[str, Generation]] = field(default_factory=lambda: [{}])

    def job(self, name: str) -> Job:
        """A child's work on one of the destinations, with a scratch folder of its destination."""
        return Job(crash_config(self.site, name), self.scratch / name, self.environment)

    def play(self, kills: int) -> "Round":
        """Kill so many runs, and let one come through now and then."""
        put_early(self.site, self.rng)
        while len(self.kills) < kills:
            began = time.monotonic()
            passages = count_passages(self.job("reference"))
            seconds = time.monotonic() - began
            wanted = read_generations(self.job("reference").config)
            for _ in range(min(self.rng.randint(1, _KILLS_IN_A_ROW), kills - len(self.kills))):
                self.kill(passages, seconds, wanted)
            self.finish(wanted)
            self.states.append(wanted)
            self.put_news()
        return self

    def put_news(self) -> None:
        """A late batch of one or two days, or one in the place of another."""
        days = self.rng.sample(DAYS, self.rng.randint(1, 2))
        name = self.rng.choice(["2", "3", f"late-{len(self.states)}"])
        self.site.put(f"{name}.parquet", write_events(self.rng, days, self.rng.randint(20, 120)))

    def kill(self, passages: Counter[str], seconds: float, wanted: dict[str, Generation]) -> None:
        """Kill a run that has news to export; one that came through first counts as none."""
        job = self.job("killed")
        if self.rng.random() < 1 / 3:
            how, code = _MOMENT, kill_from_outside(job, self.rng.uniform(0, seconds))
        else:
            how = self.rng.choice(sorted(passages))
            passage = self.rng.randint(1, passages[how])
            code = run(replace(job, point=how, passage=passage))
        if code == 0:
            return
        verdict = judge_killed(job.config, self.states[-1], wanted, self.states)
        if code != -SIGKILL:
            failure = f"a run ended with {code}: {messages(job)}"
            verdict += Verdict(problems=(failure,))
        self.kills.append((how, verdict))

    def finish(self, wanted: dict[str, Generation]) -> None:
        """Let a run come to its end, and charge what is off to the last kill."""
        job = self.job("killed")
        code = run(job)
        failures = (f"a clean run ended with {code}: {messages(job)}",) if code else ()
        verdict = judge_finished(self.site, job.config, wanted, job.scratch)
        if self.kills:
            how, killed = self.kills[-1]
            self.kills[-1] = (how, killed + verdict + Verdict(problems=failures))


def kill_from_outside(job: Job, seconds: float) -> int:
    """Kill a child after so many seconds, and return its exit code: 0 when it was faster."""
    process = start(job)
    process.join(seconds)
    process.kill()
    process.join()
    code: int = process.exitcode
    process.close()
    return code


@contextmanager
def open_rounds(store: str, kills: int, seed: int, folder: Path) -> Iterator[list[Round]]:
    """The rounds on one kind of store, none of which was played."""
    with ExitStack() as stack:
        server = stack.enter_context(serve_s3()) if store == "s3" else None
        environment = server.environment() if server else {}
        os.environ.update(environment)
        rounds = []
        for number in range(-(-kills // _KILLS_IN_A_ROUND)):
            name = f"{store}-{number}"
            here = folder / name
            site = Site(store, f"file://{here}/source", f"file://{here}/destination")
            if server:
                options = {"endpoint_url": server.endpoint}
                site = Site(store, f"s3://raw/{name}", f"s3://exports/{name}", options, server)
            rng = random.Random(f"{seed}-{name}")  # noqa: S311 - chooses kills, no secret
            rounds.append(Round(site, here / "scratch", rng, environment))
        yield rounds


def play(store: str, kills: int, seed: int, folder: Path) -> list[Round]:
    """Play the rounds of one kind of store, two at a time."""
    with (
        open_rounds(store, kills, seed, folder) as rounds,
        ThreadPoolExecutor(_ROUNDS_AT_ONCE) as pool,
    ):
        quotas = [
            min(_KILLS_IN_A_ROUND, kills - number * _KILLS_IN_A_ROUND)
            for number in range(len(rounds))
        ]
        played = []
        for each in pool.map(Round.play, rounds, quotas):
            sys.stderr.write(f"{store}: {len(each.kills)} kills\n")
            played.append(each)
        return played


def table_rows(rounds: Iterable[Round]) -> Iterator[tuple[str, str, int, Verdict]]:
    """One row for each boundary and store, and one for all."""
    runs: Counter[tuple[str, str]] = Counter()
    verdicts: dict[tuple[str, str], Verdict] = {}
    for each in rounds:
        for how, verdict in each.kills:
            runs[each.site.kind, how] += 1
            verdicts[each.site.kind, how] = verdicts.get((each.site.kind, how), Verdict()) + verdict
    for store, how in sorted(runs):
        yield how, store, runs[store, how], verdicts[store, how]
    yield "all", "all", runs.total(), sum(verdicts.values(), Verdict())


def main(arguments: list[str] | None = None) -> None:
    """Kill, print a table; exit 1 when anything was lost, twice, torn or left over."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="on all stores together")
    parser.add_argument("--seed", type=int, default=None, help="default is another every time")
    parser.add_argument("--store", choices=("file", "s3", "both"), default="both")
    options = parser.parse_args(arguments)
    seed = random.randrange(10**6) if options.seed is None else options.seed  # noqa: S311
    sys.stdout.write(f"seed {seed}\n")
    sys.stdout.flush()
    stores = ("file", "s3") if options.store == "both" else (options.store,)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        played = [
            each
            for store in stores
            for each in play(store, -(-options.kills // len(stores)), seed, Path(folder))
        ]
    rows = list(table_rows(played))
    sys.stdout.write(format_table(rows))
    sys.stdout.flush()
    _, _, _, total = rows[-1]
    if total != Verdict():
        sys.exit("\n".join(total.problems))


if __name__ == "__main__":
    main()
