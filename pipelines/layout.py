"""Paths at the destination and below a source: partitions, parts, manifests, date paths.

Pure text in, pure text out; every path is relative to its store. Partition directories are
escaped as Hive and Spark do it, so that no value can leave its directory:
https://github.com/apache/hive/blob/master/common/src/java/org/apache/hadoop/hive/common/FileUtils.java
https://github.com/apache/spark/blob/master/sql/catalyst/src/main/scala/org/apache/spark/sql/catalyst/catalog/ExternalCatalogUtils.scala
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from types import MappingProxyType
from typing import Final, NamedTuple

from pipelines.errors import ConfigError, QualityError

HIVE_NULL: Final = "__HIVE_DEFAULT_PARTITION__"
MAX_SEGMENT_BYTES: Final = 255
"""Longest name of a directory: NAME_MAX of ext4, XFS and most other file systems."""
MAX_DATE_PREFIXES: Final = 100
DATA_PREFIX: Final = "data/"
MANIFESTS_PREFIX: Final = "_meta/manifests/"
REJECTS_PREFIX: Final = "_meta/rejects/"
FAILURES_PREFIX: Final = "_meta/failures/"
SCRATCH_PREFIX: Final = "_meta/tmp/"
OWNER_PATH: Final = "_meta/owner.json"
SUFFIXES: Final[Mapping[str, str]] = MappingProxyType(
    {"gzip": ".jsonl.gz", "zstd": ".jsonl.zst", "none": ".jsonl"}
)

# Hive escapes NUL as well, Spark does not; neither escapes a space, a dot or non-ASCII text.
_ESCAPES: Final = {
    code: f"%{code:02X}" for code in (*range(0x20), 0x7F, *map(ord, "\"#%'*/:=?\\{[]^"))
}
_ESCAPED: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_NUMBER: Final = r"([0-9]{5}|[1-9][0-9]{5,})"
_PART_NAME: Final = (
    r"(all|undated|[0-9]{8}T[0-9]{6}Z)-([0-9a-f]{16})"
    rf"-{_NUMBER}-{_NUMBER}(?:-a([1-9][0-9]*))?(?:\.jsonl|\.jsonl\.gz|\.jsonl\.zst)"
)
_PART_PATH: Final = re.compile(rf"{DATA_PREFIX}(?:[^/=]+=[^/]*/)*{_PART_NAME}")
_MANIFEST_PATH: Final = re.compile(r"_meta/manifests/[^/]+/([0-9]{8})\.json")
_INSTANT: Final = "[0-9]{8}T[0-9]{6}Z"
_REJECTS_PATH: Final = re.compile(
    rf"{REJECTS_PREFIX}(all|undated|{_INSTANT}_{_INSTANT})/([0-9a-f]{{16}})-{_NUMBER}"
    r"(?:-a([1-9][0-9]*))?\.jsonl\.gz"
)
_MAX_GENERATION: Final = 99_999_999


def escape_value(value: str) -> str:
    """Return the text with what Hive and Spark escape written as `%XX`."""
    return value.translate(_ESCAPES)


def unescape_value(text: str) -> str:
    """Return the text with every `%XX` read back; a `%` that starts no escape stays."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)


def canonical_value(value: str | None) -> str | None:
    """Return the value that a reader of the partition gets back.

    Hive and Spark write NULL, the empty string and the text `__HIVE_DEFAULT_PARTITION__` as one
    directory, which is read as NULL. Group by this value, or two partitions share a directory.
    """
    return None if value in {"", HIVE_NULL} else value


def partition_path(keys: Sequence[str], values: Sequence[str | None]) -> str:
    """Return `date=2023-12-15/model=gpt-4o` for these keys and values; no keys give `""`.

    Raises:
        ConfigError: a key is empty or starts with `_` or `.`.
        QualityError: a value is too long for the name of a directory; the message leaves it out.
        ValueError: there are not as many values as keys.
    """
    return "/".join(_segment(key, value) for key, value in zip(keys, values, strict=True))


def _segment(key: str, value: str | None) -> str:
    # pyarrow.dataset skips directories with these prefixes, and every record in them.
    if not key or key.startswith(("_", ".")):
        raise ConfigError(f"partition key {key!r}: a key is not empty and starts without _ and .")
    value = canonical_value(value)
    segment = f"{escape_value(key)}={HIVE_NULL if value is None else escape_value(value)}"
    size_bytes = len(segment.encode())
    if size_bytes > MAX_SEGMENT_BYTES:
        raise QualityError(
            f"partition key {key!r}: a value makes a directory name of {size_bytes} bytes, and "
            f"file systems allow {MAX_SEGMENT_BYTES}: choose another partition key, or an SQL "
            f"expression that shortens it"
        )
    return segment


def parse_partition(path: str) -> tuple[tuple[str, str | None], ...]:
    """Return the keys and values of a partition, in order; the inverse of `partition_path`.

    Raises:
        ValueError: a directory is not `key=value`.
    """
    return tuple(_parse_segment(segment) for segment in path.split("/")) if path else ()


def _parse_segment(segment: str) -> tuple[str, str | None]:
    key, equals, value = segment.partition("=")
    if not key or not equals:
        raise ValueError(f"{segment!r} is not a partition directory key=value")
    return unescape_value(key), canonical_value(unescape_value(value))


class PartName(NamedTuple):
    """What the name of a part says; `window_prefix` is the `prefix` of its window."""

    window_prefix: str
    digest: str
    shard: int
    part: int
    attempt: int


def part_path(  # noqa: PLR0917 -- in the order they stand in the path
    partition: str, prefix: str, digest: str, shard: int, part: int, suffix: str, attempt: int = 0
) -> str:
    """Return `data/<partition>/<prefix>-<digest>-<shard>-<part><suffix>`.

    Args:
        partition: what `partition_path` returned; may be empty.
        prefix: the `prefix` of the window.
        digest: 16 lower-case hexadecimal digits.
        shard: from 0; five digits at least, as `part` has.
        part: from 0, counted within shard and partition.
        suffix: one of the values of `SUFFIXES`.
        attempt: above 0 adds `-a<attempt>`: the name was taken by other bytes.

    Raises:
        ValueError: an argument is not as described.
    """
    directory = f"{DATA_PREFIX}{partition}/" if partition else DATA_PREFIX
    again = f"-a{attempt}" if attempt else ""
    path = f"{directory}{prefix}-{digest}-{shard:05d}-{part:05d}{again}{suffix}"
    if parse_part(path) is None:
        raise ValueError(f"{path!r} is not the path of a part")
    return path


def parse_part(path: str) -> PartName | None:
    """Return what the path of a part says, or None when it is not the path of a part."""
    match = _PART_PATH.fullmatch(path)
    if match is None:
        return None
    prefix, digest, shard, part, attempt = match.groups()
    return PartName(prefix, digest, int(shard), int(part), int(attempt or 0))


def manifests_prefix(window_name: str) -> str:
    """Return the directory of a window's manifests, with its final slash."""
    return f"{MANIFESTS_PREFIX}{window_name}/"


def manifest_path(window_name: str, generation: int) -> str:
    """Return the path of one generation, counted from 1; paths sort as generations do.

    Raises:
        ValueError: the generation has no path.
    """
    if not 1 <= generation <= _MAX_GENERATION:
        raise ValueError(f"generation {generation} is not within 1 and {_MAX_GENERATION}")
    return f"{manifests_prefix(window_name)}{generation:08d}.json"


def parse_generation(path: str) -> int | None:
    """Return the generation of a manifest, or None when it is not the path of a manifest."""
    match = _MANIFEST_PATH.fullmatch(path)
    return (int(match[1]) or None) if match else None


def window_prefix(window_name: str) -> str:
    """Return the `prefix` of the window with this name: what names of its parts begin with."""
    return window_name.partition("_")[0]


def rejects_path(window_name: str, digest: str, shard: int, attempt: int = 0) -> str:
    """Return the path of the rejects of one shard, which are always gzip.

    Raises:
        ValueError: `digest` is not 16 lower-case hexadecimal digits, `shard` or `attempt` is
            negative, or no window has the name.
    """
    again = f"-a{attempt}" if attempt else ""
    path = f"{REJECTS_PREFIX}{window_name}/{digest}-{shard:05d}{again}.jsonl.gz"
    if parse_rejects(path) is None:
        raise ValueError(f"{path!r} is not the path of rejects")
    return path


def parse_rejects(path: str) -> PartName | None:
    """Return what the path of rejects says, or None when it is not the path of rejects.

    A shard has one such object, so `part` is 0.
    """
    match = _REJECTS_PATH.fullmatch(path)
    if match is None:
        return None
    window_name, digest, shard, attempt = match.groups()
    return PartName(window_prefix(window_name), digest, int(shard), 0, int(attempt or 0))


_UNITS: Final = ("%Y", "%m", "%d", "%H")
_PADDED: Final = {
    "%Y": r"([0-9]{4})",
    "%m": r"([0-9]{2})",
    "%d": r"([0-9]{2})",
    "%H": r"([0-9]{2})",
}
_PLAIN: Final = dict.fromkeys(_UNITS, r"(0|[1-9][0-9]?)") | {"%Y": _PADDED["%Y"]}


@dataclass(frozen=True, slots=True)
class DatePath:
    """Template of the UTC date in a source's directories, such as `year=%Y/month=%m/day=%d`.

    Numbers may be padded (`month=01`) or plain (`month=1`, as writers of integer keys have it),
    all of a path in one way. Plain ones are not recognised where numbers touch (`%Y%m%d`).

    Raises:
        ConfigError: the template has another directive than %Y, %m, %d and %H, has one twice,
            lacks one coarser than those it has, has a wildcard, or starts or ends with a slash.
    """

    template: str

    def __post_init__(self) -> None:
        tokens = _tokens(self.template)
        directives = tokens[1::2]
        literals = "".join(tokens[::2])
        wrong = [unit for unit in directives if unit not in _UNITS or directives.count(unit) > 1]
        problem = ""
        if wrong or "%" in literals:
            problem = f"{wrong[0] if wrong else '%'!r}: use each of %Y, %m, %d and %H once at most"
        elif not directives or set(directives) != set(_UNITS[: len(directives)]):
            problem = "%Y is needed, %m before a %d, and %d before a %H"
        elif set("*?[") & set(literals):
            problem = "wildcards are not supported"
        elif self.template.startswith("/") or self.template.endswith("/"):
            problem = "it is relative to the source's url and has no slash at either end"
        if problem:
            raise ConfigError(f"date path {self.template!r}: {problem}")

    def parse(self, path: str) -> tuple[datetime, datetime] | None:
        """Return the half-open UTC interval that the directories of a path stand for.

        Args:
            path: of a batch, relative to the source's root.

        Returns:
            None when the path does not start with the template or has no such date: it may then
            hold events of any time.
        """
        tokens = _tokens(self.template)
        for pattern in _patterns(self.template):
            if match := pattern.match(path):
                numbers = dict(zip(tokens[1::2], map(int, match.groups()), strict=True))
                year, month, day = (numbers.get(unit, 1) for unit in _UNITS[:3])
                try:
                    start = datetime(year, month, day, numbers.get("%H", 0), tzinfo=UTC)
                    return start, _following(start, len(numbers))
                except (ValueError, OverflowError):
                    continue
        return None

    def leads_on(self, folder: str) -> bool:
        """Return whether a folder's path is the template's beginning, with more to come."""
        steps, template = folder.rstrip("/").split("/"), self.template.split("/")
        if len(steps) >= len(template):
            return False
        beginning = "/".join(template[: len(steps)])
        if "%" not in beginning:
            return steps == template[: len(steps)]
        return any(pattern.fullmatch(folder.rstrip("/")) for pattern in _patterns(beginning))

    def widened(self, start: datetime, end: datetime) -> tuple[datetime, datetime]:
        """Return the times of the folders that `[start, end)` touches, and of those beside them."""
        count = len(_tokens(self.template)) // 2
        first, last = _unit_start(start, count), end
        with suppress(ValueError, OverflowError):  # before the year 1 or after 9999
            first = _unit_start(first - timedelta(microseconds=1), count)
        with suppress(ValueError, OverflowError):
            last = _unit_start(end - timedelta(microseconds=1), count)
            last = _following(_following(last, count), count)
        return first, last

    def prefixes(self, start: datetime, end: datetime) -> tuple[str, ...]:
        """Return the prefixes, sorted, that paths with a date in `[start, end)` start with.

        Every path whose `parse` overlaps the interval starts with exactly one of them; those
        with `parse` None may start with none. There is one for each finest unit, in both ways to
        write its numbers; when that is more than 100, for each coarser unit, and in the end the
        text before the first directive. So a prefix may end within a directory's name.

        Raises:
            ValueError: `start` or `end` is not in UTC.
        """
        if start.utcoffset() != timedelta(0) or end.utcoffset() != timedelta(0):
            raise ValueError(f"{start.isoformat()} and {end.isoformat()} are not both in UTC")
        if start >= end:
            return ()
        widths = (2, 1)[: len(_patterns(self.template))]
        for unit_count in range(len(_tokens(self.template)) // 2, 0, -1):
            units = tuple(islice(_list_units(start, end, unit_count), MAX_DATE_PREFIXES + 1))
            found = {self._prefix(unit, unit_count, width) for unit in units for width in widths}
            if max(len(units), len(found)) <= MAX_DATE_PREFIXES:
                return tuple(sorted(found))
        return (_tokens(self.template)[0],)

    def _prefix(self, unit_start: datetime, unit_count: int, width: int) -> str:
        numbers = dict(zip(_UNITS, unit_start.timetuple(), strict=False))
        text = ""
        for part in _tokens(self.template):
            if part in _UNITS[unit_count:]:
                return text
            digits = 4 if part == "%Y" else width
            text += f"{numbers[part]:0{digits}d}" if part in _UNITS else part
        return f"{text}/"


@lru_cache(maxsize=16)
def _tokens(template: str) -> tuple[str, ...]:
    """Literals at even places, directives at odd ones."""
    return tuple(re.split(r"(%.)", template, flags=re.DOTALL))


@lru_cache(maxsize=16)
def _patterns(template: str) -> tuple[re.Pattern[str], ...]:
    """The template with padded numbers, and with plain ones where they have an end."""
    *between, last = _tokens(template)[2::2]
    has_plain = "%m" in template and all(text and not text[0].isdigit() for text in between)
    kinds = (_PADDED, _PLAIN) if has_plain and not last[:1].isdigit() else (_PADDED,)
    return tuple(
        re.compile("".join(kind.get(t, re.escape(t)) for t in _tokens(template)) + r"(?:/|\Z)")
        for kind in kinds
    )


def _unit_start(instant: datetime, unit_count: int) -> datetime:
    """The start of the year, month, day or hour that holds an instant."""
    year, month, day, hour = (*instant.timetuple()[:unit_count], *(1, 1, 1, 0)[unit_count:])
    return datetime(year, month, day, hour, tzinfo=UTC)


def _following(unit_start: datetime, unit_count: int) -> datetime:
    """The start of the next year, month, day or hour; ValueError or OverflowError after 9999."""
    match unit_count:
        case 1:
            return unit_start.replace(year=unit_start.year + 1)
        case 2:
            years, month = divmod(unit_start.month, 12)
            return unit_start.replace(year=unit_start.year + years, month=month + 1)
        case 3:
            return unit_start + timedelta(days=1)
        case _:
            return unit_start + timedelta(hours=1)


def _list_units(start: datetime, end: datetime, unit_count: int) -> Iterator[datetime]:
    """The starts of the years, months, days or hours that overlap `[start, end)`."""
    unit_start = _unit_start(start, unit_count)
    while unit_start < end:
        yield unit_start
        try:
            unit_start = _following(unit_start, unit_count)
        except (ValueError, OverflowError):
            return
