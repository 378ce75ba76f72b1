"""Does a store keep what a name holds? Some ignore `If-None-Match` and write over it."""

import logging
import uuid
from functools import lru_cache

from pipelines.errors import ConfigError, StorageError
from pipelines.layout import SCRATCH_PREFIX
from pipelines.storage import Store

logger = logging.getLogger(__name__)


@lru_cache(maxsize=64)
def is_create_only(store: Store) -> bool:
    """Return whether a second write of a name is refused; tried once a process and store.

    Three requests: two puts of a probe object and its removal; none on a local disk.
    """
    if store.is_local:
        return True
    probe = f"{SCRATCH_PREFIX}probe-{uuid.uuid4().hex}"
    store.create(probe, b"first\n")
    is_refused = not store.create(probe, b"second\n")
    try:
        store.delete(probe)
    except StorageError as exc:
        logger.info("left a probe behind for `request-logs gc`: %s", exc)
    return is_refused


def check_create_only(store: Store, *, strict: bool) -> None:
    """Warn of a store that writes over objects, or refuse it.

    Raises:
        ConfigError: it does, and `strict` is set.
    """
    if is_create_only(store):
        return
    found = f"{store.url}: this store writes over an object where it should refuse (If-None-Match)"
    if strict:
        raise ConfigError(
            f"{found}, and destination.strict_commit is set: take a store with conditional puts, "
            f"or unset it and let one run at a time write there. Nothing was written"
        )
    logger.warning(
        "%s: a manifest is looked for before and read again after its commit, which does not "
        "decide between two runs that commit in the same moment: let one run at a time write there",
        found,
    )
