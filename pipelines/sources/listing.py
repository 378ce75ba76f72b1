"""Where a source's batches lie: its url as a root and a pattern, listed as its date path allows."""

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from heapq import merge
from operator import attrgetter
from pathlib import Path

from pipelines.config import Source
from pipelines.errors import ConfigError
from pipelines.layout import DatePath
from pipelines.storage import Store, StoredObject, open_store

_LISTINGS = 16  # requests at once
_HIDDEN = re.compile(r"(^|/)[._]")  # as Spark and Hive skip them
_SUFFIXES = (".parquet", ".parq")
_BELOW = r"(?:/.*\.parq(?:uet)?)?"
_WILDCARD = re.compile(r"[*?\[]|\{[^{}]*[,{]")  # braces without a comma are a name's own
_PIECES = re.compile(r"(\*\*/|\*\*|\*|\?|\[[!^]?(?:\][^\]/]*|[^\]/]+)\]|\{[^{}]*,[^{}]*\})")
_NESTED = re.compile(r"\{[^{}]*(\{[^{}]*,[^{}]*\}|,[^{}]*\{[^{}]*\})")
_KNOWN_PIECES = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


@dataclass(frozen=True, slots=True)
class SourceFiles:
    """A source's root store and the pattern its batches' paths match.

    Attributes:
        prefix: what all of them start with.
        is_narrow: whether the url is a pattern or one object, not a whole folder.
    """

    store: Store
    pattern: re.Pattern[str]
    prefix: str = ""
    is_narrow: bool = True


def open_source(source: Source) -> SourceFiles:
    """Split a source's url into a root to list and a pattern for paths below it.

    A url that ends in `.parquet` is an object, or a folder of them as Spark names it.

    Raises:
        ConfigError: the url holds a set or alternatives that are none.
    """
    wildcard = _WILDCARD.search(source.url)
    if wildcard is not None:
        split = source.url.rfind("/", 0, wildcard.start()) + 1
        if source.url[:split].endswith("://"):
            raise ConfigError(f"source.url: {source.url!r}: a pattern stands after the bucket")
        files = open_store(source.url[:split].rstrip("/"), source.storage_options)
        return SourceFiles(files, _glob_pattern(source.url[split:]))
    if source.url.endswith(_SUFFIXES):
        folder, _, name = source.url.rpartition("/")
        files = open_store(folder, source.storage_options)
        return SourceFiles(files, re.compile(re.escape(name) + _BELOW), name)
    files = open_store(source.url, source.storage_options)
    return SourceFiles(files, re.compile(r".*\.parq(uet)?"), is_narrow=False)


def is_narrowed(source: Source, files: SourceFiles) -> bool:
    """Return whether a listing for a span of time leaves folders out."""
    return source.date_path is not None and not files.prefix


def list_batches(
    source: Source, files: SourceFiles, start: datetime | None = None, end: datetime | None = None
) -> Iterator[StoredObject]:
    """Yield the source's batches by path.

    With [start, end), only date folders of these times are listed, and those next to them, as a
    batch may span midnight. What lies beside the date folders may hold events of any time, and is
    listed: that takes a request for each folder above the finest.
    """
    if start is None or end is None or not is_narrowed(source, files):
        found = files.store.list_wide([files.prefix])
    else:
        dates = DatePath(source.date_path or "")
        dated = dates.prefixes(*dates.widened(start, end))
        places, beside = _list_beside(files.store, dates, dated)
        found = merge(files.store.list_wide([*dated, *places]), beside, key=attrgetter("path"))
    yield from _batches_among(files, found)


def why_no_batch(source: Source) -> str:
    """Return why a source whose listing found no batch has none; takes one more listing."""
    files = open_source(source)
    place = files.store.location("").rstrip("/")
    if files.store.is_local and not Path(place).is_dir():
        return f"{place} is a file" if Path(place).exists() else f"{place} does not exist"
    if not any(files.store.list_folder("")):
        return f"nothing at all lies under {place}"
    if files.is_narrow:
        return f"nothing under {place} has a name that fits"
    return f"nothing under {place} is named *.parquet or *.parq"


def find_readable(
    files: SourceFiles, is_readable: Callable[[StoredObject], bool]
) -> StoredObject | None:
    """Return some batch that is readable, listing a folder after the other until there is one."""
    folders = [""]
    while folders:
        below, objects = files.store.list_folder(folders.pop())
        for entry in _batches_among(files, objects):
            if is_readable(entry):
                return entry
        folders += (folder for folder in below if not _HIDDEN.search(folder))
    return None


def _batches_among(files: SourceFiles, found: Iterable[StoredObject]) -> Iterator[StoredObject]:
    for entry in found:
        if files.pattern.fullmatch(entry.path) and not _HIDDEN.search(entry.path):
            yield entry


def _list_beside(
    store: Store, dates: DatePath, dated: tuple[str, ...]
) -> tuple[list[str], list[StoredObject]]:
    """Folders beside those of dates, at each level of the template, and the objects there.

    Args:
        store: the source's root.
        dates: the template.
        dated: prefixes that are listed anyway.
    """
    places: list[str] = []
    objects: list[StoredObject] = []
    level = [""]
    with ThreadPoolExecutor(_LISTINGS) as pool:
        while level:
            pages = list(pool.map(store.list_folder, level))
            objects += [entry for _, found in pages for entry in found]
            below = [folder for folders, _ in pages for folder in folders]
            below = [f for f in below if not f.startswith(dated) and not _HIDDEN.search(f)]
            level = [folder for folder in below if dates.leads_on(folder)]
            places += [f for f in below if not dates.leads_on(f) and dates.parse(f) is None]
    beside = [entry for entry in objects if not entry.path.startswith(dated)]
    return places, sorted(beside, key=attrgetter("path"))


def _glob_pattern(glob: str) -> re.Pattern[str]:
    """`**/` is any number of folders, `*` and `?` stay in a name; the rest is as in sh."""
    if _NESTED.search(glob):
        raise ConfigError(f"source.url: {glob!r} has alternatives within alternatives")
    below = _BELOW if glob.endswith(_SUFFIXES) else ""
    try:
        return re.compile(_glob_source(glob) + below)
    except re.error as exc:
        raise ConfigError(f"source.url: {glob!r} is no pattern of paths: {exc}") from exc


def _glob_source(glob: str) -> str:
    return "".join(map(_piece_pattern, _PIECES.split(glob)))


def _piece_pattern(piece: str) -> str:
    """The regular expression of one wildcard, or of the text between two."""
    if piece in _KNOWN_PIECES:
        return _KNOWN_PIECES[piece]
    if _PIECES.fullmatch(piece) is None:
        return re.escape(piece)
    if piece.startswith("{"):
        return "(?:" + "|".join(_glob_source(one) for one in piece[1:-1].split(",")) + ")"
    negated = piece[1] in "!^" and len(piece) > len("[!]")
    inner = "".join(c if c == "-" else re.escape(c) for c in piece[1 + negated : -1])
    return f"(?!/)[{'^' if negated else ''}{inner}]"
