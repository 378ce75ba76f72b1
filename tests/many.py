"""Events of all kinds in many row groups, and what an export of them leaves, byte for byte."""

import json
from datetime import UTC, datetime, timedelta

from pipelines.values import parse_bytes
from tests.builders import event, make_config, write_batch

NOON = datetime(2024, 6, 1, 12, tzinfo=UTC)
DAILY = {"every": "1d", "lag": "20m"}
_MANY = 3000


def call(name, at=NOON, **changes):
    """A good event of which the request says its name."""
    request = changes.pop("request", json.dumps({"name": name}))
    changes = {"id": name, "received_at": at + timedelta(seconds=2), **changes}
    return event(requested_at=at, request=request, **changes)


def put_many(site, **changes):
    """Three batches of many row groups, with dropped, rejected and repeated events among them."""
    for number in range(3):
        rows = [
            call(
                f"{number}-{row % 900}",
                NOON + timedelta(seconds=(row * 7919) % 40_000),
                model=f"model-{row % 7}",
                status_code=200 if row % 11 else 500,
                response='{"broken' if row % 97 == 0 else '{"text":"%s"}' % ("x" * (row % 300)),
                tags=json.dumps({"team": f"t{row % 3}"}),
                received_at=NOON + timedelta(seconds=row),
            )
            for row in range(_MANY // 3)
        ]
        site.put(f"b{number}.parquet", write_batch(rows, row_group_size=50, **changes))


def many_config(site, destination="", **changes):
    settings = {
        "window": DAILY,
        "partition_by": ["model", "tags.team"],
        "target_part_bytes": parse_bytes("10kB"),
        "filters": [{"field": "duration_ms", "comparator": ">", "value": 1}],
        "exclude_errors": True,
        "remove_duplicates": "record",
        "sample": {"fraction": 0.8, "seed": 3},
        "max_reject_ratio": 0.5,
        "destination": {"url": f"{site.destination_url}{destination}"},
        **changes,
    }
    return make_config(site, **settings)


def written_bytes(site, destination=""):
    """Bytes by path of what a run left below `data/` and in rejects, whatever names it."""
    store = site.store(f"{site.destination_url}{destination}")
    return {
        found.path: store.read_bytes(found.path)
        for prefix in ("data/", "_meta/rejects/")
        for found in store.list_objects(prefix)
    }
