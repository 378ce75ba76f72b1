"""Exports that a kill may hit, and the comparison of what is left with a run never killed."""

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipelines.config import ExportConfig
from pipelines.local import TEMPORARY
from pipelines.manifest import Ledger, Manifest, list_generations, read_manifest
from pipelines.owner import open_destination
from pipelines.storage import Store
from pipelines.verification import verify_export
from tests.builders import event, make_config, split_lines, unpack, write_batch
from tests.crash import AFTER, HAS_GARBAGE_COLLECTION

DAYS = tuple(datetime(2024, 6, day, tzinfo=UTC) for day in range(1, 6))
assert DAYS[-1] + timedelta(days=1) < AFTER, "the last day's window is due"
_MODELS = ("m-long", "m-long", "m-short", "m/odd", None)
_IDS = 400  # a day: few enough that copies of an id meet


def write_events(
    rng: random.Random, days: Sequence[datetime], events: int, *, characters: int = 200
) -> bytes:
    """A batch of events of some days, with copies, errors, rejects and undated ones among them."""
    words = [f"{rng.getrandbits(24):x}" for _ in range(500)]
    rows = []
    for _ in range(events):
        day, number = rng.choice(days), rng.randrange(_IDS)
        # By the id alone: copies of an id carry the same event time.
        at = day + timedelta(seconds=number * 200)
        model = _MODELS[number % len(_MODELS)]
        size = characters * (100 if model == "m-long" else 1)
        text = " ".join(rng.choices(words, k=size // 7))
        rows.append(
            event(
                id=f"{day:%d}-{number}",
                requested_at=None if rng.random() < 0.01 else at,
                received_at=at + timedelta(seconds=rng.randrange(10_000)),
                model=model,
                status_code=500 if rng.random() < 0.05 else 200,
                request=json.dumps({"model": model, "messages": [{"content": text[:50]}]}),
                response='{"cut' if rng.random() < 0.03 else json.dumps({"text": text}),
            )
        )
    return write_batch(rows, row_group_size=100)


def put_early(site: Any, rng: random.Random) -> None:
    """Batches of the first four days; the last of them comes later."""
    site.put("1.parquet", write_events(rng, DAYS[:1], 150))
    site.put("2.parquet", write_events(rng, DAYS[1:3], 300))
    site.put("3.parquet", write_events(rng, DAYS[2:3], 100))
    site.put("4.parquet", write_events(rng, DAYS[3:4], 50))


def put_late(site: Any, rng: random.Random) -> None:
    """A late batch, one overwritten and one of a new day; the fourth day has no news."""
    site.put("5.parquet", write_events(rng, DAYS[:2], 300))
    site.put("3.parquet", write_events(rng, DAYS[2:3], 120))
    site.put("6.parquet", write_events(rng, DAYS[4:], 150))


def crash_config(site: Any, name: str) -> ExportConfig:
    """Several parts a window, of more than one partition, some of more than one chunk."""
    return make_config(
        site,
        window={"every": "1d", "lag": "20m"},
        partition_by=["date", "model"],
        exclude_errors=False,
        filters=[{"field": "status_code", "comparator": "=", "value": 200}],
        target_part_bytes="1200kB",
        max_reject_ratio=0.5,
        threads=2,
        destination={"url": f"{site.destination_url}/{name}"},
    )


def copy_objects(source: Store, destination: Store) -> None:
    """Put every object of one place at another that is empty."""
    for found in source.list_objects():
        assert destination.create(found.path, source.read_bytes(found.path))


@dataclass(frozen=True)
class Generation:
    """One committed window: all that must be as if no run was ever killed."""

    number: int
    parts: dict[str, bytes]
    rejects: dict[str, bytes]
    ledger: Ledger
    batches: tuple[tuple[str, Ledger], ...]

    @property
    def records(self) -> list[bytes]:
        """All lines of all parts that can be read, in the manifest's order."""
        return [line for path, data in self.parts.items() for line in whole_lines(path, data)]


def whole_lines(path: str, data: bytes) -> list[bytes]:
    """Lines of a part; none when it cannot be read, which a comparison of bytes finds too."""
    try:
        return split_lines(unpack(path, data))
    except (AssertionError, EOFError, OSError, ValueError):
        return []


def read_generations(config: ExportConfig) -> dict[str, Generation]:
    """The newest generation of every window, as a reader that follows manifests sees it."""
    store = open_destination(config)
    newest = sorted(list_generations(store).items())
    return {window: _read(store, read_manifest(store, window, n)) for window, n in newest}


def _read(store: Store, manifest: Manifest) -> Generation:
    def read(paths: Iterable[str]) -> dict[str, bytes]:
        return {path: store.read_bytes(path) for path in paths if store.stat(path) is not None}

    return Generation(
        number=manifest.generation,
        parts=read(part.path for part in manifest.parts),
        rejects=read(part.path for part in manifest.rejects),
        ledger=manifest.ledger,
        batches=tuple((batch.path, batch.ledger) for batch in manifest.batches),
    )


@dataclass(frozen=True)
class Verdict:
    """What a kill cost: events and objects, which must all be 0, and sentences on all that is off.

    Attributes:
        torn: objects that are visible under data/ or named by a manifest, and not whole.
        stray: objects under data/ that no manifest names, uploads and temporary files.
    """

    lost: int = 0
    duplicated: int = 0
    torn: int = 0
    stray: int = 0
    problems: tuple[str, ...] = ()

    def __add__(self, other: "Verdict") -> "Verdict":
        """The sum of two verdicts."""
        return Verdict(
            self.lost + other.lost,
            self.duplicated + other.duplicated,
            self.torn + other.torn,
            self.stray + other.stray,
            (*self.problems, *other.problems),
        )


def judge_killed(
    config: ExportConfig,
    before: Mapping[str, Generation],
    wanted: Mapping[str, Generation],
    older: Iterable[Mapping[str, Generation]] = (),
) -> Verdict:
    """What readers see between a kill and the next run: each window whole, old or new.

    Args:
        config: the export that was killed.
        before: what was committed before.
        wanted: what a run that was never killed committed since.
        older: what was committed earlier still; parts of it may not be removed yet.
    """
    found = read_generations(config)
    problems = list(verify_export(config, deep=True).problems) if found else []
    problems += [
        f"{window}: neither the generation before nor the next one"
        for window in sorted(before.keys() | found.keys())
        if found.get(window) not in (before.get(window), wanted.get(window))
    ]
    known = {
        path: data
        for state in (before, wanted, *older)
        for generation in state.values()
        for path, data in generation.parts.items()
    }
    store = open_destination(config)
    torn = [
        found.path
        for found in store.list_objects("data/")
        if known.get(found.path) != store.read_bytes(found.path)
    ]
    problems += [f"{path} is visible and not whole" for path in torn]
    return Verdict(torn=len(torn), problems=tuple(problems))


def judge_finished(
    site: Any, config: ExportConfig, wanted: Mapping[str, Generation], scratch: Path
) -> Verdict:
    """What is there after a clean run, against what a run that was never killed left."""
    found = read_generations(config)
    records, expected = (
        Counter((window, line) for window, made in each.items() for line in made.records)
        for each in (found, wanted)
    )
    torn = [
        path
        for generation in found.values()
        for path, data in generation.parts.items()
        if not all(_is_json(line) for line in whole_lines(path, data) or [b""])
    ]
    stray = list(list_strays(site, config, scratch))
    problems = [f"{path} is torn" for path in torn]
    problems += [f"{what} is left over" for what in stray]
    problems += verify_export(config, deep=True).problems
    problems += list(_differences(found, wanted))
    return Verdict(
        lost=(expected - records).total(),
        duplicated=(records - expected).total(),
        torn=len(torn),
        stray=len(stray),
        problems=tuple(problems),
    )


def _is_json(line: bytes) -> bool:
    try:
        return list(json.loads(line)) == ["input", "output", "tags"]
    except ValueError:
        return False


def _differences(
    found: Mapping[str, Generation], wanted: Mapping[str, Generation]
) -> Iterator[str]:
    if found.keys() != wanted.keys():
        yield f"windows {sorted(found)} are committed, not {sorted(wanted)}"
    for window in sorted(found.keys() & wanted.keys()):
        one, other = found[window], wanted[window]
        if one.number != other.number:
            yield f"{window}: generation {one.number}, not {other.number}"
        for what in ("parts", "rejects"):
            paths, others = getattr(one, what), getattr(other, what)
            if list(paths) != list(others):
                yield f"{window}: other names of {what}: {sorted(paths.keys() ^ others.keys())}"
                continue
            for path in paths:
                if paths[path] != others[path]:
                    yield f"{path}: {_how(path, paths[path], others[path])}"
        if (one.ledger, one.batches) != (other.ledger, other.batches):
            yield f"{window}: another ledger, {one.ledger.as_text()}"


def _how(path: str, data: bytes, other: bytes) -> str:
    """In what way two parts of one name differ."""
    lines, others = whole_lines(path, data), whole_lines(path, other)
    if lines == others:
        what = "the same lines, compressed to other bytes"
    elif Counter(lines) == Counter(others):
        what = "the same lines in another order"
    else:
        what = "other lines"
    pairs = enumerate(zip(data, other, strict=False))
    first = next((at for at, (one, two) in pairs if one != two), min(len(data), len(other)))
    return f"{what}: {len(data)} bytes, not {len(other)}; the first that differs is {first}"


def list_strays(site: Any, config: ExportConfig, scratch: Path) -> Iterator[str]:
    """Whatever a dead run left that a clean run should have taken over or removed."""
    store = open_destination(config)
    kept = {
        part.path
        for window, newest in list_generations(store).items()
        for number in ([newest] if HAS_GARBAGE_COLLECTION else range(1, newest + 1))
        for manifest in [read_manifest(store, window, number)]
        for part in (*manifest.parts, *manifest.rejects)
    }
    for prefix in ("data/", "_meta/rejects/"):
        yield from (found.path for found in store.list_objects(prefix) if found.path not in kept)
    yield from (path.name for path in scratch.glob("request-logs-*"))
    if site.server is None:
        yield from (path.name for path in (Path(store.root) / TEMPORARY).glob("*"))
        return
    bucket, _, prefix = store.root.partition("/")
    client = site.server.client()
    try:
        found = client.list_multipart_uploads(Bucket=bucket, Prefix=f"{prefix}/")
    finally:
        client.close()
    yield from (upload["Key"] for upload in found.get("Uploads", []))


def first_generations(wanted: Mapping[str, Generation]) -> dict[str, Generation]:
    """What a destination that was empty gets: the same parts, as first generations."""
    return {window: replace(found, number=1) for window, found in wanted.items()}


def format_table(rows: Iterable[tuple[str, str, int, Verdict]]) -> str:
    """A table of (point, store, runs, verdict), one a line."""
    lines = [
        "point | store | runs | lost | duplicated | torn | stray | other",
        "--- | " * 7 + "---",
    ]
    for point, store, runs, found in rows:
        counts = (runs, found.lost, found.duplicated, found.torn, found.stray)
        cells = (point, store, *map(str, counts), str(len(found.problems)))
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines) + "\n"
