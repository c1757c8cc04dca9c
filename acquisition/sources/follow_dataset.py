"""Follow an acquisition that somebody else runs and saves: every image of it, as it is saved.

Owns the wait for the dataset, and the step from a saved image to the stream. The files are the
buffer between the two programs: when the stream is slower than the acquisition, it comes later,
and no image is missed. Only NDTiff can be read while it is written: Micro-Manager's Multi-D window
with the saving format *NDTiff*, and all of pycro-manager.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import AcquisitionError
from ..stream.frame import TakesImages
from .saved_images import GrowingIndex, SavedImages, meaningful_axes

POLL_S = 0.05
WAIT_S = 0.25
GRACE_S = 5.0
"""For the last images, after Micro-Manager has said that its acquisition is over."""
RECENT_S = 60.0
"""A dataset that was not written to for so long rests, until an image is added."""


class SavedAcquisitions:
    """The acquisitions in a folder; tells those that are written from those that were before.

    Parameters
    ----------
    folder
        Where they are saved, or the dataset's own folder; it need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._finished: set[Path] = set()
        self._resting: dict[Path, GrowingIndex] = {}
        for dataset in self._datasets():
            index = GrowingIndex(dataset)
            _grows(index)
            if index.finished():
                self._finished.add(dataset)
            elif index.changed_s() < time.time() - RECENT_S:
                self._resting[dataset] = index

    def begun(self) -> Path | None:
        """Return the newest dataset that is being written; None while there is none."""
        for dataset in [dataset for dataset, index in self._resting.items() if _grows(index)]:
            del self._resting[dataset]
        written = [
            GrowingIndex(dataset)
            for dataset in self._datasets()
            if dataset not in self._finished and dataset not in self._resting
        ]
        newest = max(written, key=GrowingIndex.changed_s, default=None)
        return None if newest is None else newest.folder

    def _datasets(self) -> list[Path]:
        folders = [self.folder, *self.folder.glob("*")] if self.folder.is_dir() else []
        return [folder for folder in folders if (folder / "NDTiff.index").is_file()]


def _grows(index: GrowingIndex) -> bool:
    """Whether images were saved since the index was last read."""
    return sum(1 for _ in index.new_entries()) > 0


def await_dataset(
    acquisitions: SavedAcquisitions, *, is_running: Callable[[], bool] = lambda: True
) -> Path:
    """Wait until an image is saved and return its dataset.

    Raises
    ------
    AcquisitionError
        If the acquisition ended before.
    """
    began_s = time.monotonic()
    while (dataset := acquisitions.begun()) is None:
        if time.monotonic() - began_s > GRACE_S and not is_running():
            raise AcquisitionError(
                f"{acquisitions.folder}: the acquisition ended before an image was saved there; "
                "begin it anew"
            )
        time.sleep(WAIT_S)
    return dataset


def follow_dataset(
    dataset: Path,
    live: TakesImages,
    *,
    is_running: Callable[[], bool] = lambda: True,
    frames: int | None = None,
    on_frames: Callable[[int], None] | None = None,
) -> int:
    """Hand every image of a dataset that is being written to `live`; return how many there were.

    Ends when the program that writes has finished the dataset, when `frames` have come, or some
    seconds after `is_running` says that the acquisition is over.
    """
    index, saved = GrowingIndex(dataset), SavedImages()
    count, asked_s = 0, time.monotonic()
    ends_s: float | None = None
    try:
        while frames is None or count < frames:
            for axes, entry in index.new_entries():
                _hand_over(live, saved, dataset, axes, entry)
                count, asked_s, ends_s = count + 1, time.monotonic(), None
                if on_frames is not None:
                    on_frames(count)
                if count == frames:
                    return count
            now = time.monotonic()
            if ends_s is not None and now > ends_s:
                break
            if ends_s is None and index.finished():
                ends_s = now + 2 * POLL_S  # once more: the index is closed after the images
            elif ends_s is None and now - asked_s > GRACE_S:
                # Seldom: every answer keeps Micro-Manager from its own work.
                asked_s = now
                ends_s = None if is_running() else now + GRACE_S
            time.sleep(POLL_S)
    finally:
        saved.close()
    return count


def _hand_over(
    live: TakesImages, saved: SavedImages, dataset: Path, axes: dict[str, int | str], entry: Any
) -> None:
    pixels, metadata = saved.read_entry(dataset, entry)
    named = meaningful_axes(axes, saved.summary())
    live.image_process_fn(pixels, {**metadata, "Axes": named})
