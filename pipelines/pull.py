"""Committed records into a bundle for fine-tuning; nothing is left out without a counted reason."""

import json
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import duckdb

from pipelines.bundle import CARD, BundleFile, BundleWriter, check_place, publish, staging
from pipelines.bundle_card import describe_bundle, features_of
from pipelines.chat.convert import to_example
from pipelines.chat.example import DroppedError
from pipelines.chat.gates import check_example
from pipelines.chat.prune import prune_example
from pipelines.committed import CommittedExport, open_export
from pipelines.committed_window import CommittedWindow
from pipelines.config import ExportConfig
from pipelines.engine import connect
from pipelines.errors import ConfigError, WindowChangedError
from pipelines.identity import Identity, hash_of, identify, identify_line
from pipelines.manifest import PACKAGE, package_version
from pipelines.opening import opening_of
from pipelines.owner import export_above
from pipelines.pull_options import REST, PullOptions
from pipelines.pull_pairs import dump_side, make_pairs, side_of
from pipelines.pull_rows import Rejects, dump_fitting, dump_row
from pipelines.pull_summary import Counts, PullSummary
from pipelines.pull_where import Condition
from pipelines.record_text import cut_record, parse_record
from pipelines.selection import Kept, Selection, split_of
from pipelines.spill import SpillFile
from pipelines.storage import Store, open_store
from pipelines.targets.base import Target
from pipelines.targets.columns import leading, shape
from pipelines.targets.llamafactory import DATASET_INFO
from pipelines.targets.registry import TARGETS

logger = logging.getLogger(__name__)

_MEMORY_LIMIT = 1024**3
_RESTARTS = 3  # of an export that is written again all the time no whole state can be read
_BYTES_PER_TOKEN = 4  # of English text, by the usual rule of thumb
Progress = Callable[[int], None]


def pull(
    source: str | Path | ExportConfig,
    destination: str,
    options: PullOptions,
    *,
    storage_options: Mapping[str, Any] | None = None,
    rejects: Path | None = None,
    progress: Progress | None = None,
) -> PullSummary:
    """Write a bundle of an export's committed records; a pull of nothing writes nothing.

    Args:
        source: an export's destination, or its config.
        destination: folder or S3 prefix of the bundle, which must be new.
        options: what to take, and what to make of it.
        storage_options: of both places, where `source` is no config.
        rejects: JSONL file that gets every dropped record with its reason.
        progress: called with the number of records as they are read.

    Raises:
        ConfigError: source, destination or options do not fit.
        QualityError: a part is damaged, or the export changed again and again.
        StorageError: a store failed; no bundle is there then.
    """
    own = storage_options
    if isinstance(source, ExportConfig):
        own = source.destination.storage_options
    store = open_store(destination, own)
    check_place(store)
    above = export_above(store.url, own)
    if above is not None:
        raise ConfigError(
            f"--to: {store.url} lies inside the export at {above}; take another place"
        )
    if rejects is not None:
        _check_rejects(rejects, store, own)
    _open(source, storage_options, options)  # before anything is made
    with (
        staging(store) as folder,
        connect(memory_limit=_MEMORY_LIMIT, threads=None) as con,
    ):
        restarts = 0
        while True:
            with closing(_Pull(options, con, folder, rejects, progress)) as work:
                try:
                    return work.run(source, storage_options, store)
                except WindowChangedError as exc:
                    restarts += 1
                    if restarts == _RESTARTS:
                        raise
                    logger.warning("%s", exc)


def _check_rejects(path: Path, bundle: Store, storage_options: Mapping[str, Any] | None) -> None:
    place = path.resolve()
    above = export_above(place.parent.as_uri(), storage_options)
    if above is not None:
        raise ConfigError(f"--rejects: {path} lies inside the export at {above}; take another file")
    if bundle.is_local and place.is_relative_to(bundle.root):
        raise ConfigError(f"--rejects: {path} lies inside the bundle; take another file")


def _open(
    source: str | Path | ExportConfig,
    storage_options: Mapping[str, Any] | None,
    options: PullOptions,
) -> CommittedExport:
    return open_export(
        source,
        storage_options=storage_options,
        start=options.start,
        end=options.end,
        partitions=options.partitions,
        as_of=options.as_of,
        generation=options.generation,
    )


class _Pull:
    """One attempt at a pull."""

    def __init__(
        self,
        options: PullOptions,
        con: duckdb.DuckDBPyConnection,
        folder: Path,
        rejects: Path | None,
        progress: Progress | None,
    ) -> None:
        self._options = options
        self._target: Target = TARGETS[options.format]
        self._con = con
        self._folder = folder
        self._counts = Counts()
        self._selection = Selection(con, options.seed)
        self._spool = SpillFile(
            "the rows of the pull", "pull less at a time, by --start and --end or --partition"
        )
        self._progress = progress
        self._condition = Condition(con, options.where)
        self._rejects = Rejects(rejects) if rejects is not None else None
        self._extras = False  # whether records have more than the three keys

    def run(
        self,
        source: str | Path | ExportConfig,
        storage_options: Mapping[str, Any] | None,
        store: Store,
    ) -> PullSummary:
        """Read, select and write."""
        options = self._options
        export = _open(source, storage_options, options)
        for window in export.iter_windows():
            self._read(window)
            self._counts.sources.append(
                {
                    "window": window.name,
                    "generation": window.generation,
                    "manifest": window.manifest_url,
                    "committed_at": window.committed_at,
                }
            )
        self._select()
        writer = BundleWriter(self._folder, max_file_bytes=self._target.max_file_bytes)
        for split, row in self._rows():
            writer.write(split, row)
        files = writer.finish()
        summary = self._summarise(export, store, files)
        if not files:
            return summary
        described = self._describe(summary)
        features = features_of(options, has_extras=self._extras)
        extras = {CARD: describe_bundle(described, features).encode()}
        if options.format == "llamafactory":
            info = {file.split: {"file_name": file.path, **DATASET_INFO} for file in files}
            extras["dataset_info.json"] = json.dumps(info, indent=1).encode() + b"\n"
        created = publish(store, self._folder, described, extras)
        return replace(summary, exists=not created)

    def close(self) -> None:
        """Free what the attempt holds."""
        self._spool.close()
        if self._rejects is not None:
            self._rejects.close()

    def _read(self, window: CommittedWindow) -> None:
        self._extras = self._extras or window.record_keys[3:] != ()
        partition = None
        for part, lines in window.part_lines():
            if part.partition != partition:
                partition = part.partition
                self._selection.begin_partition(newest_first=window.is_newest_first)
            fits = self._condition.fits(lines, window.record_keys)
            for line, is_wanted in zip(lines, fits, strict=True):
                self._counts.read += 1
                if not is_wanted:
                    self._counts.dropped["where"] += 1
                    continue
                try:
                    self._take(line, window.record_keys)
                except DroppedError as exc:
                    self._drop(exc, line)
                except RecursionError:
                    self._drop(DroppedError("unreadable_record", "nested too deep"), line)
            if self._progress is not None:
                self._progress(len(lines))

    def _take(self, line: bytes, keys: tuple[str, ...]) -> None:
        """Put one record down as a row, or raise a DroppedError."""
        options = self._options
        try:
            record = parse_record(line)
        except ValueError as exc:
            raise DroppedError("unreadable_record") from exc
        tags = record["tags"]
        if any(tags.get(name) != value for name, value in options.tags.items()):
            raise DroppedError("tag_filter")
        if options.format == "records":
            opening = _opening(record, line, keys) if options.split else None
            self._keep(identify_line(line, opening), line, line, tags)
            return
        example = to_example(record)
        if options.prune:
            example = prune_example(example, options.prune)
        example = check_example(example, allow_finish=frozenset(options.allow_finish))
        if self._target.needs_pairs:
            side = side_of(tags, options)
            self._keep(identify(example), dump_side(example, options), line, tags, side=side)
            return
        row, repairs = self._target.to_row(example)
        data = dump_fitting(row, self._target)
        repaired = *example.repairs, *repairs
        self._keep(identify(example), data, line, tags, repaired, shown=shape(row))

    def _keep(
        self,
        identity: Identity,
        row: bytes,
        line: bytes,
        tags: Mapping[str, str | None],
        repairs: Sequence[str] = (),
        *,
        side: str | None = None,
        shown: Collection[str] = (),
    ) -> None:
        start, size = self._spool.write(row)
        place = self._spool.write(line) if self._rejects is not None else None
        by = self._options.split_by_tag
        value = tags.get(by) if by is not None else None
        key = value.encode() if value is not None else None
        self._counts.split_tag_missing += by is not None and value is None
        self._selection.add(
            identity,
            start,
            size,
            split_key=key,
            side=side,
            repairs=tuple(dict.fromkeys(repairs)),
            shape=shown,
            line=place,
        )

    def _select(self) -> None:
        options, limit = self._options, self._target.max_rows
        max_rows = min(options.max_rows or 2**62, limit or 2**62)
        if self._target.needs_pairs:
            make_pairs(self._selection, self._spool, self._target, options)
            found = self._selection.select_pairs(max_rows=max_rows)
        elif options.format == "records":
            found = self._selection.select(only_longest=False, duplicates="keep", max_rows=max_rows)
        else:
            found = self._selection.select(
                only_longest=options.only_longest,
                duplicates=options.duplicates,
                max_rows=max_rows,
            )
        self._counts.dropped.update(found)
        self._counts.repairs.update(self._selection.count_repairs())
        if self._rejects is not None:
            for reason, start, size in self._selection.left_out():
                self._rejects.write(reason, "", self._spool.read(start, size))

    def _rows(self) -> Iterator[tuple[str, bytes]]:
        first = self._leading()
        starts = {kept.start for kept in first}
        rest = (kept for kept in self._selection.kept() if kept.start not in starts)
        for kept in chain(first, rest):
            row = self._spool.read(kept.start, kept.size)
            split = split_of(kept.split_at, self._options.split, REST)
            if self._options.format == "openpipe":
                row = dump_row(json.loads(row) | {"split": "TRAIN" if split == REST else "TEST"})
            yield split, row

    def _leading(self) -> list[Kept]:
        """Rows of each split that show a key or type first: they tell a loader the columns."""
        if self._options.format == "records":
            return []
        ends = list(accumulate(self._options.split.values()))
        splits: dict[str, list[Kept]] = {}
        for kept in self._selection.first_of_shapes(ends):
            split = split_of(kept.split_at, self._options.split, REST)
            splits.setdefault(split, []).append(kept)
        return [
            found[place]
            for found in splits.values()
            for place in leading(
                shape(json.loads(self._spool.read(k.start, k.size))) for k in found
            )
        ]

    def _drop(self, exc: DroppedError, line: bytes) -> None:
        self._counts.dropped[exc.reason] += 1
        if self._rejects is not None and exc.reason != "tag_filter":
            self._rejects.write(exc.reason, exc.detail, line)

    def _summarise(
        self, export: CommittedExport, store: Store, files: Sequence[BundleFile]
    ) -> PullSummary:
        rows = Counter[str]()
        for file in files:
            rows[file.split] += file.rows
        return PullSummary(
            export=export.url,
            destination=store.url,
            format=self._options.format,
            windows=len(self._counts.sources),
            read=self._counts.read,
            rows=dict(rows),
            dropped=dict(sorted(self._counts.dropped.items())),
            repairs=dict(sorted(self._counts.repairs.items())),
            split_tag_missing=self._counts.split_tag_missing,
            tokens_estimate=sum(file.bytes for file in files) // _BYTES_PER_TOKEN,
            files=tuple(asdict(file) for file in files),
            min_rows=self._target.min_rows,
            why_empty="" if self._counts.read else export.why_empty(),
            empty_splits=tuple(sorted({REST, *self._options.split} - rows.keys())) if rows else (),
        )

    def _describe(self, summary: PullSummary) -> dict[str, Any]:
        """What `bundle.json` says: nothing that differs between equal pulls."""
        said = summary.as_dict()
        for name in ("destination", "exists", "why_empty", "empty_splits"):
            said.pop(name)
        return {
            "author": {"name": PACKAGE, "version": package_version()},
            **said,
            "windows": self._counts.sources,
            "options": self._options.model_dump(mode="json", exclude_defaults=True)
            # What is removed may be what nobody is to see.
            | {"prune": len(self._options.prune)},
        }


def _opening(record: Mapping[str, Any], line: bytes, keys: tuple[str, ...]) -> bytes:
    """What keeps records together; of one that is nested too deep, its input as recorded."""
    try:
        return opening_of(record["input"])
    except RecursionError:
        return hash_of(cut_record(line, keys)[0])
