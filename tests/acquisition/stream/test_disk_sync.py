"""What was written is put on the disk itself, and a disk that fails is told of."""

from __future__ import annotations

import errno
import os
import sys
import threading

import numpy as np
import pytest

from quietscope.acquisition import LiveDenoiser
from quietscope.acquisition.stream import disk_sync
from quietscope.acquisition.stream.disk_sync import DiskSync, open_sync
from quietscope.storage.atomic_output import OutputError
from quietscope.storage.ome_zarr_writer import OmeZarrWriter
from quietscope.storage.written_frames import written_frames

SHAPE = (16, 16)


def image(time: int) -> tuple[np.ndarray, dict]:
    return np.full(SHAPE, 100 + time, np.uint16), {"Axes": {"time": time}, "Camera": "Camera"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such call")
def test_the_system_puts_a_folder_on_its_disk(tmp_path):
    opened = open_sync(tmp_path)
    assert opened is not None
    sync, release = opened
    sync()
    release()


class FailingDisk:
    """A disk whose cache works and whose platter does not."""

    def __init__(self, fail_at: int, number: int = errno.EIO) -> None:
        self.fail_at = fail_at
        self.number = number
        self.syncs = 0
        self.released = threading.Event()

    def open(self, folder):
        return self.sync, self.released.set

    def sync(self) -> None:
        self.syncs += 1
        if self.syncs == self.fail_at:
            raise OSError(self.number, os.strerror(self.number))


def test_it_syncs_while_it_runs_and_once_at_the_end(tmp_path, monkeypatch):
    disk = FailingDisk(fail_at=-1)
    monkeypatch.setattr(disk_sync, "open_sync", disk.open)
    monkeypatch.setattr(disk_sync, "INTERVAL_S", 0.01)
    syncing = DiskSync(tmp_path)
    syncing.start()
    while disk.syncs < 3:
        threading.Event().wait(0.01)
    syncing.close()
    assert disk.released.is_set()
    ended = disk.syncs
    syncing.close()
    assert disk.syncs == ended


def test_a_disk_that_fails_is_told_of_after_the_run(tmp_path, monkeypatch):
    disk = FailingDisk(fail_at=1)
    monkeypatch.setattr(disk_sync, "open_sync", disk.open)
    with (
        pytest.raises(OutputError, match="the disk failed"),
        LiveDenoiser(output=tmp_path / "run") as live,
    ):
        live.image_process_fn(*image(0))
    assert not live.report["complete"]
    assert "the disk failed" in live.report["errors"][0]
    assert written_frames(tmp_path / "run" / "raw.ome.zarr").sum() == 1


def test_a_disk_that_cannot_be_asked_is_no_failure(tmp_path, monkeypatch):
    disk = FailingDisk(fail_at=1, number=errno.ENOSYS)
    monkeypatch.setattr(disk_sync, "open_sync", disk.open)
    with LiveDenoiser(output=tmp_path / "run") as live:
        live.image_process_fn(*image(0))
    assert live.report["complete"]
    assert disk.released.is_set()


def test_a_frame_whose_content_never_reached_the_disk_is_not_counted(tmp_path):
    store = tmp_path / "raw.ome.zarr"
    with OmeZarrWriter(store, frame_shape=SHAPE, dtype="uint16") as writer:
        for time in range(5):
            writer.write(image(time)[0], {"time": time})
    (store / "0" / "c.3.0.0.0.0").write_bytes(b"")  # what a power cut leaves
    assert written_frames(store)[:, 0, 0].tolist() == [True, True, True, False, True]
    with OmeZarrWriter(store, frame_shape=SHAPE, dtype="uint16", resume=True) as writer:
        assert not writer.holds({"time": 3})
        writer.write(image(3)[0], {"time": 3})
    assert written_frames(store).all()
