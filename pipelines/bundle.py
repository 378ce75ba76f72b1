"""Files of a bundle: flat, uncompressed JSONL with a description, there whole or not at all."""

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pipelines.errors import ConfigError, QualityError, StorageError
from pipelines.local import local_errors
from pipelines.scratch import open_scratch
from pipelines.storage import Store

DESCRIPTION = "bundle.json"
CARD = "README.md"
# What a pull that was killed may have left on S3.
_OWN_NAME = re.compile(r"[a-z]+(-[0-9]{5}-of-[0-9]{5})?\.jsonl|README\.md|dataset_info\.json")
_COPY_BYTES = 8 * 1024**2


@dataclass(frozen=True, slots=True)
class BundleFile:
    """One file of rows."""

    path: str
    split: str
    rows: int
    bytes: int
    sha256: str


@dataclass(slots=True)
class _Open:
    split: str
    number: int
    handle: IO[bytes]
    digest: Any = field(default_factory=hashlib.sha256)
    rows: int = 0
    bytes: int = 0


class BundleWriter:
    """Writes rows into files of a staging folder; one file of each split takes rows at a time."""

    def __init__(self, folder: Path, *, max_file_bytes: int | None) -> None:
        """Use an empty folder."""
        self.folder = folder
        self._max = max_file_bytes or 2**62
        self._open: dict[str, _Open] = {}
        self._closed: list[_Open] = []

    def write(self, split: str, row: bytes) -> None:
        """Append one row, which has no line end yet, to the newest file of its split."""
        file = self._open.get(split)
        if file is not None and file.bytes + len(row) + 1 > self._max:
            self._close(split)
            file = None
        if file is None:
            number = sum(closed.split == split for closed in self._closed)
            path = self.folder / f"{split}.{number}"
            with local_errors("create", f"file://{path}"):
                file = _Open(split, number, path.open("xb"))
            self._open[split] = file
        line = row + b"\n"
        with local_errors("write", f"file://{self.folder}"):
            file.handle.write(line)
        file.digest.update(line)
        file.rows += 1
        file.bytes += len(line)

    def finish(self) -> tuple[BundleFile, ...]:
        """Close all files and give them their names, by split and number."""
        for split in list(self._open):
            self._close(split)
        return tuple(self._named(file) for file in sorted(self._closed, key=_place))

    def _close(self, split: str) -> None:
        file = self._open.pop(split)
        with local_errors("write", f"file://{self.folder}"):
            file.handle.flush()
            os.fsync(file.handle.fileno())
            file.handle.close()
        self._closed.append(file)

    def _named(self, file: _Open) -> BundleFile:
        count = sum(closed.split == file.split for closed in self._closed)
        number = f"-{file.number:05d}-of-{count:05d}" if count > 1 else ""
        name = f"{file.split}{number}.jsonl"
        with local_errors("name", f"file://{self.folder / name}"):
            (self.folder / f"{file.split}.{file.number}").rename(self.folder / name)
        return BundleFile(name, file.split, file.rows, file.bytes, file.digest.hexdigest())


def _place(file: _Open) -> tuple[str, int]:
    return file.split, file.number


@contextmanager
def staging(store: Store) -> Iterator[Path]:
    """Yield an empty folder in which a bundle is made: beside its place on a disk.

    Raises:
        ConfigError: another pull is writing there.
    """
    if not store.is_local:
        with open_scratch() as folder:
            yield folder
        return
    target = Path(store.root)
    folder = target.parent / f".{target.name}.partial"  # fixed: the next pull clears a dead one's
    with local_errors("create", f"file://{folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(lock)
        raise ConfigError(f"--to: another pull is writing to {target}") from exc
    try:
        for left in folder.iterdir():
            left.unlink()
        yield folder
    finally:
        # Not once it has become the bundle: another pull may have made its own since.
        if folder.is_dir() and folder.stat().st_ino == os.fstat(lock).st_ino:
            shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def check_place(store: Store) -> None:
    """Make sure that a bundle may be written to a place; what it holds may be this very bundle.

    Raises:
        ConfigError: something else is there.
    """
    if store.is_local and Path(store.root).exists() and not Path(store.root).is_dir():
        raise ConfigError(f"--to: {store.root} is a file; name a folder")
    if store.stat(DESCRIPTION) is not None:
        return
    if (
        store.is_local
        and Path(store.root).is_dir()
        and (left := sorted(Path(store.root).iterdir()))
    ):
        raise ConfigError(f"--to: {store.url} holds {left[0].name} and no bundle; take a new place")
    for found in store.list_objects():
        if _OWN_NAME.fullmatch(found.path) is None:
            raise ConfigError(
                f"--to: {store.url} holds {found.path} and no bundle; take a new place"
            )


def publish(
    store: Store, folder: Path, description: Mapping[str, Any], extras: Mapping[str, bytes]
) -> bool:
    """Move a finished bundle to its place; return False when all of it is there already.

    On a disk that is one rename. On S3 `bundle.json` is put last: what is there without it is the
    beginning of a bundle, which the same pull finishes. Files that were lost since come back.

    Args:
        store: the bundle's place.
        folder: where its files are now.
        description: what `bundle.json` says.
        extras: other small files, by name.

    Raises:
        ConfigError: another bundle is there.
        QualityError: this bundle is there, and one of its files is not as it was written.
        StorageError: the store failed; on a disk nothing is there then.
    """
    data = json.dumps(description, indent=1, ensure_ascii=False).encode() + b"\n"
    for name, content in extras.items():
        (folder / name).write_bytes(content)
    if store.stat(DESCRIPTION) is not None:
        if store.read_bytes(DESCRIPTION) != data:
            raise ConfigError(f"--to: {store.url} holds another bundle; take a new place")
        return _restore(store, folder, description, extras)
    if store.is_local:
        (folder / DESCRIPTION).write_bytes(data)
        with local_errors("create", store.url):
            folder.rename(store.root)
        return True
    paths = [*(file["path"] for file in description["files"]), *extras]
    _check_alone(store, paths)
    for path in paths:
        _upload(store, folder / path, path)
    _check_alone(store, paths)
    if store.create(DESCRIPTION, data) is None and store.read_bytes(DESCRIPTION) != data:
        raise ConfigError(f"--to: {store.url} got another bundle meanwhile; take a new place")
    return True


def _restore(
    store: Store, folder: Path, description: Mapping[str, Any], extras: Mapping[str, bytes]
) -> bool:
    """Put back what is missing of a bundle; return whether anything was.

    What is there must be as the bundle has it, the card too.
    """
    digests = {file["path"]: file["sha256"] for file in description["files"]}
    digests |= {name: hashlib.sha256(content).hexdigest() for name, content in extras.items()}
    missing = [path for path in digests if store.stat(path) is None]
    for path, digest in digests.items():
        if path not in missing and store.sha256(path) != digest:
            url = store.absolute_url(path)
            raise QualityError(
                f"--to: {url} is not the file that this pull writes: it was changed or cut off; "
                f"remove it and pull again, or take a new place"
            )
    for path in missing:
        if store.is_local:
            with local_errors("create", store.absolute_url(path)):
                (folder / path).rename(Path(store.root) / path)
        else:
            _upload(store, folder / path, path)
    return bool(missing)


def _check_alone(store: Store, paths: Collection[str]) -> None:
    """Make sure that readers of all files there read this bundle alone."""
    for found in store.list_objects():
        if found.path not in paths:
            url = store.absolute_url(found.path)
            raise ConfigError(f"--to: {url} is of another pull; remove it or take a new place")


def _upload(store: Store, local: Path, path: str) -> None:
    with local.open("rb") as source, store.open_writer(path) as writer:
        while data := source.read(_COPY_BYTES):
            writer.write(data)
        created = writer.commit()
    if not created:
        with local.open("rb") as source:
            same = hashlib.file_digest(source, "sha256").hexdigest() == store.sha256(path)
        if not same:
            url = store.absolute_url(path)
            raise StorageError(f"{url} exists with other bytes; take a new place", url=url)
