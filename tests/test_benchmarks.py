"""The parts of the paired runs: one tiny pair, and what a comparison sees."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.catalog import PEERS, find_peers
from tests.benchmarks.compare import compare_outputs

ROOT = Path(__file__).parent.parent
PARTITION = "date=2024-06-01/model=gpt-4o"


def record(number, **changes):
    return {"input": {"seed": number}, "output": {"id": f"chatcmpl-{number}"}, **changes}


def write_output(folder, records, partition=PARTITION):
    path = folder / partition / "lines.jsonl.gz"
    path.parent.mkdir(parents=True)
    lines = [given if isinstance(given, str) else json.dumps(given) for given in records]
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
    return folder


@pytest.fixture
def package(tmp_path):
    return write_output(tmp_path / "package", [record(0), record(1, tags={"a": None})])


def test_paired_runs_find_that_a_plain_copy_has_the_same_content(tmp_path):
    peers = ["duckdb", "scan-concat", "compressor"]
    size = ["--gb", "0.002", "--runs", "1", "--compression", "gzip"]
    folder = ["--dir", str(tmp_path)]

    done = subprocess.run(  # noqa: S603 - this interpreter on our own arguments
        [sys.executable, "-m", "tests.benchmarks.paired", *size, *folder, "--peers", *peers],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )

    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| gzip")]
    assert {row[1]: row[-1].strip(" |") for row in rows} == {
        "duckdb": "100.0%",
        "scan-concat": "writes nothing",
        "compressor": "writes nothing",
    }
    assert "of scan-concat and then compressor" in done.stdout


def test_a_comparison_looks_through_spelling_and_order(package, tmp_path):
    spelt = json.dumps({"tags": {"a": None}, **record(1)}, indent=1).replace("\n", " ")
    peer = write_output(tmp_path / "peer", [spelt, record(0)])

    assert compare_outputs(package, peer, 1).is_same


@pytest.mark.parametrize(
    ("records", "share_equal"),
    [
        pytest.param([record(0), record(1)], 0.5, id="tags-lost"),
        pytest.param([record(0), *json.dumps(record(1), indent=1).splitlines()], 0.5, id="broken"),
        pytest.param([record(0)], 0.5, id="missing"),
        pytest.param([record(0), record(1, tags={"a": None}), record(2)], 1, id="one-more"),
    ],
)
def test_a_comparison_counts_the_records_that_are_equal(package, tmp_path, records, share_equal):
    peer = write_output(tmp_path / "peer", records)

    found = compare_outputs(package, peer, 1)

    assert (found.share_equal, found.is_same) == (share_equal, False)


def test_a_comparison_sees_records_in_another_partition(package, tmp_path):
    records = [record(0), record(1, tags={"a": None})]
    peer = write_output(tmp_path / "peer", records, PARTITION.replace("4o", "4.1"))

    assert compare_outputs(package, peer, 1).share_equal == 0


def test_a_comparison_sees_errors_which_have_no_completion(tmp_path):
    package = write_output(tmp_path / "package", [{"input": {"n": 1}, "output": None}])
    same = write_output(tmp_path / "same", ['{"output":null,"input":{"n":1.0}}'])
    other = write_output(tmp_path / "other", ['{"input":{"n":1}}'])

    assert compare_outputs(package, same, 1).is_same
    assert not compare_outputs(package, other, 1).is_same


def test_peers_that_are_not_installed_are_left_out_by_name(tmp_path):
    found = find_peers(PEERS, tmp_path / "python")

    assert set(found.peers) == {name for name, peer in PEERS.items() if not peer.package}
    assert found.left_out["spark"] == (
        f"{tmp_path / 'python'} has no pyspark: `make peers` installs it"
    )


@pytest.mark.parametrize("name", PEERS)
def test_each_peer_has_its_script(name):
    assert (ROOT / f"tests/benchmarks/peers/{PEERS[name].script}.py").is_file()
