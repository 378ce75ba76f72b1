"""Superseded and duplicate events: packed, cut to a shard, and never Python objects."""

import pickle
import tracemalloc
from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.copies import (
    find_equal_keys,
    find_losers,
    find_newer,
    find_superseded,
    list_ids,
    list_keys,
)
from pipelines.losers import (
    BATCH_WIDTH,
    Losers,
    list_places,
    pack_places,
    places_between,
    places_within,
    unpack_places,
)
from pipelines.plan import plan_export
from tests.builders import NOW, events, make_config, write_batch

EVENTS = 40_000
ROWS = st.integers(0, 30) | st.integers(2**31, 2**31 + 30)
PLACES = st.sets(st.tuples(st.integers(0, 4), ROWS), max_size=40).map(sorted)


def rows_of(places):
    batches, rows = [batch for batch, _ in places], [row for _, row in places]
    columns = {"batch": pa.array(batches, pa.int32()), "row": pa.array(rows, pa.int64())}
    return pa.RecordBatch.from_pydict(columns)


def read(packed):
    return [divmod(place, BATCH_WIDTH) for place in unpack_places(packed).to_pylist()]


def single_work(site, rows, **changes):
    """The work of the only shard of an export of these events."""
    site.put("a.parquet", write_batch(rows))
    plan = plan_export(make_config(site, **changes), now=NOW)
    (work,) = plan.shard_works(plan.windows[0])
    return work


@settings(deadline=None)
@given(places=PLACES, cut=st.integers(0, 40))
def test_places_are_packed_and_unpacked(places, cut):
    reads = [rows_of(places[:cut]), rows_of(places).slice(min(cut, len(places)))]

    assert read(pack_places(reads)) == places


@settings(deadline=None)
@given(places=PLACES, numbers=st.sets(st.integers(0, 4)), first=ROWS, rows=st.integers(0, 2**32))
def test_places_within_are_those_of_the_ranges(places, numbers, first, rows):
    ranges = [(number, (first, first + rows)) for number in sorted(numbers)]

    found = places_within(pack_places([rows_of(places)]), ranges)

    assert read(found) == [p for p in places if p[0] in numbers and first <= p[1] < first + rows]


@settings(deadline=None)
@given(places=PLACES, ends=st.lists(st.tuples(st.integers(0, 4), ROWS), min_size=2, max_size=2))
def test_places_between_include_both_ends(places, ends):
    first, last = sorted(ends)
    bounds = list_places(rows_of([first, last])).to_pylist()

    found = places_between(pack_places([rows_of(places)]), *bounds).to_pylist()

    assert [divmod(place, BATCH_WIDTH) for place in found] == [
        place for place in places if first <= place <= last
    ]


def test_superseded_events_take_eight_bytes_each(site):
    work = single_work(site, events({"id": f"{n // 4}"} for n in range(EVENTS)))
    find_superseded(work)  # what is imported and cached at first does not count

    tracemalloc.start()
    found = find_superseded(work)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert read(found) == [(0, n) for n in range(EVENTS) if n % 4 != 3]
    assert len(found) == EVENTS * 3 // 4 * 8
    assert peak < 4 * len(found)
    assert len(pickle.dumps(Losers(found))) < len(found) + 1000


def test_duplicates_are_the_same_found_here_or_from_keys_of_elsewhere(site):
    rows = events({"request": f'{{"n":{n % 700}}}'} for n in range(5000))
    work = single_work(site, rows, remove_duplicates="record")

    keys = pickle.loads(pickle.dumps(list_keys(work)))  # noqa: S301 - as an executor would
    tables = [keys.slice(0, 900), pa.table({}), keys.slice(900)]
    found = find_equal_keys(work.config, tables, rows=5000)

    assert find_losers(work) == Losers(b"", found)
    assert read(found) == [(0, n) for n in range(700, 5000)]


@pytest.mark.parametrize("rows_at_once", [10_000, 1200, 300])
def test_losers_are_the_same_in_any_number_of_buckets(site, monkeypatch, rows_at_once):
    changes = ({"id": f"{n % 1900}", "request": f'{{"n":{n % 700}}}'} for n in range(5000))
    work = single_work(site, events(changes), remove_duplicates="record")
    whole = find_losers(work)
    monkeypatch.setattr("pipelines.copies._ROWS_AT_ONCE", rows_at_once)

    here = find_losers(work)
    newer = find_newer(work.config, [list_ids(work)], rows=5000)
    equal = find_equal_keys(
        work.config, [list_keys(replace(work, losers=Losers(newer)))], rows=5000
    )

    assert here == whole == Losers(newer, equal)
    assert len(newer) == 8 * 3100
