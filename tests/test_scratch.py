import os
import signal
from multiprocessing import get_context

import pytest

from pipelines.scratch import open_scratch


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def die_with_a_full_folder(parent):
    import tempfile  # noqa: PLC0415 - in the child

    tempfile.tempdir = parent
    with open_scratch() as scratch:
        (scratch / "copy.parquet").write_bytes(b"PAR1")
        os.kill(os.getpid(), signal.SIGKILL)


def test_folder_goes_with_its_context(folder):
    with open_scratch() as scratch:
        assert list(folder.iterdir()) == [scratch]

    assert list(folder.iterdir()) == []


def test_folder_of_a_killed_process_goes_with_the_next(folder):
    child = get_context("spawn").Process(target=die_with_a_full_folder, args=(str(folder),))
    child.start()
    child.join()
    (left,) = folder.iterdir()

    with open_scratch() as scratch:
        assert list(folder.iterdir()) == [scratch]

    assert child.exitcode == -signal.SIGKILL
    assert left != scratch


def test_folder_in_use_stays(folder):
    with open_scratch() as first, open_scratch() as second:
        assert sorted(folder.iterdir()) == sorted([first, second])


def test_folders_of_others_stay(folder):
    (folder / "request-logs-demo").mkdir()
    (folder / "elsewhere").mkdir()
    (folder / "request-logs-scratch-link").symlink_to(folder / "elsewhere")

    with open_scratch():
        pass

    assert {path.name for path in folder.iterdir()} == {
        "request-logs-demo",
        "elsewhere",
        "request-logs-scratch-link",
    }
