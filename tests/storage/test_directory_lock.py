"""Of several programs one writes: whoever ends lets go, however it ends; the others are told."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from quietscope.storage import directory_lock
from quietscope.storage.atomic_output import OutputError
from quietscope.storage.directory_lock import DirectoryLock, is_owned, owned

RACES = 40

HOLD = """
import sys, time
from quietscope.storage.directory_lock import DirectoryLock
lock = DirectoryLock(sys.argv[1])
lock.acquire()
print("owned", flush=True)
time.sleep(60)
"""

RACE = """
import os, sys
from pathlib import Path
from quietscope.storage.atomic_output import OutputError
from quietscope.storage.directory_lock import owned
folder = Path(sys.argv[1])
for line in sys.stdin:
    run = folder / line.strip()
    try:
        with owned(run):
            run.mkdir(exist_ok=True)
            mine = run / "owner"
            # Whoever finds the file of another owner here has caught two owners.
            os.close(os.open(mine, os.O_CREAT | os.O_EXCL))
            print("owned", flush=True)
            sys.stdin.readline()
            mine.unlink()
    except OutputError:
        print("refused", flush=True)
        sys.stdin.readline()
    except FileExistsError:
        print("two owners", flush=True)
        sys.stdin.readline()
"""


def holder(path):
    program = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert program.stdout.readline() == "owned\n"
    return program


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_holder_is_named_and_a_dead_one_holds_nothing(tmp_path):
    run = tmp_path / "my run"
    program = holder(run)
    try:
        with pytest.raises(
            OutputError, match=rf"being written by process {program.pid} since 20\d\d-.*; wait"
        ):
            DirectoryLock(run).acquire()
        assert is_owned(run)
    finally:
        program.send_signal(signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
        program.communicate()
    with owned(run):
        assert is_owned(run)
    assert not is_owned(run)
    assert names(tmp_path) == [], "nothing is left behind"


def test_the_lock_holds_while_its_directory_is_moved_and_replaced(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with owned(run):
        run.rename(tmp_path / "aside")
        assert is_owned(run)
        run.mkdir()
        assert is_owned(run)
        run.rmdir()
        assert is_owned(run)
    assert not is_owned(run)


def test_no_clock_decides(tmp_path, monkeypatch):
    """A step of the clock, and a lock file of whatever age, change nothing."""
    run = tmp_path / "run"
    program = holder(run)
    try:
        for step_s in (-1e6, 1e6):
            os.utime(tmp_path / ".run.lock", (time.time() + step_s,) * 2)
            monkeypatch.setattr(time, "time", lambda step=step_s: 1.8e9 + step)
            assert is_owned(run)
    finally:
        program.kill()
        program.communicate()
    (tmp_path / ".run.lock").write_bytes(b"\0{half a li")
    assert not is_owned(run)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_two_names_of_a_directory_are_one_lock(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with owned(tmp_path / "link"):
        assert is_owned(tmp_path / "run")
        assert is_owned(tmp_path / "nowhere" / ".." / "run")


def test_a_store_of_a_run_belongs_to_whoever_owns_the_run(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "events.log").touch()
    with owned(run):
        assert is_owned(run / "denoised.ome.zarr")
    with owned(run / "denoised.ome.zarr", run / "uncertainty.ome.zarr"):
        assert is_owned(run)
        assert not is_owned(tmp_path / "another")


def test_threads_of_one_program_are_told_apart(tmp_path):
    owners, refused = [], []
    barrier = threading.Barrier(8)

    def acquire():
        lock = DirectoryLock(tmp_path / "run")
        barrier.wait()
        try:
            lock.acquire(wait_s=0)
            owners.append(lock)
        except OutputError as error:
            refused.append(error)

    threads = [threading.Thread(target=acquire) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(owners), len(refused)) == (1, 7)
    owners[0].release()
    owners[0].release()


def test_a_folder_in_a_folder_that_nobody_may_write(tmp_path, monkeypatch):
    """The lock lies inside then. An administrator may write anywhere: the answer is made up."""

    def refuse(protected):
        raise PermissionError(errno.EACCES, "Permission denied", str(protected))

    monkeypatch.setattr(directory_lock, "_beside", refuse)
    run = tmp_path / "run"
    with pytest.raises(OutputError, match="choose a folder that you may write to"):
        DirectoryLock(run).acquire()
    run.mkdir()
    with owned(run):
        assert names(run) == [directory_lock.INSIDE]
        assert is_owned(run)
    assert names(run) == []


def test_races_of_two_programs_have_one_owner_each(tmp_path):
    """Each race anew: with a file left behind by a killed program, and without."""
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]

    def tell(text):
        for program in programs:
            program.stdin.write(text + "\n")
            program.stdin.flush()

    answers = []
    try:
        for race in range(RACES):
            if race % 2:
                (tmp_path / f".run-{race}.lock").write_bytes(b"\0stale")
            tell(f"run-{race}")
            answers.append(sorted(program.stdout.readline().strip() for program in programs))
            tell("end")
    finally:
        for program in programs:
            program.stdin.close()
            program.wait()
            program.stdout.close()
    assert answers == [["owned", "refused"]] * RACES
