"""Smaller resolutions for a store that is whole: viewers open large frames at once.

Owns the levels, each half of the one before by the mean of 2×2 pixels, and their entry in the
metadata. They are made from the frames on the disk, one at a time, after the store was written;
frames that are absent stay so. A store with levels is not resumed: they would not know of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..atomic_output import OutputError, staged
from ..ngff_metadata import array_folder, image_folders, read_group, write_group
from ..tensorstore_backend import FrameArray, InFlight
from ..written_frames import chunk_places

SMALLEST_EDGE = 256
"""A level is made as long as the longer edge of the one before is larger than this."""
IN_FLIGHT = 8
IN_FLIGHT_BYTES = 64 * 2**20


def add_pyramid(store: Path | str, on_progress: Callable[[int, int], None] | None = None) -> int:
    """Add smaller resolutions to every image of a store, and return how many there are now.

    Parameters
    ----------
    store
        That `OmeZarrWriter` wrote, whole; the caller owns it.
    on_progress
        Called with (frames done, frames to do), counted over all levels.

    Raises
    ------
    OutputError
        If it is no store of ours, has levels already, or cannot be written.
    """
    store = Path(store)
    try:
        images = list(image_folders(store).values())
        arrays = [array_folder(image) for image in images]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise OutputError(
            f"{store}: no smaller resolutions can be added ({error}); give a store that was "
            "written without them"
        ) from error
    shape = FrameArray.open(arrays[0]).frame_shape
    levels = _levels(shape)
    places = [sorted(chunk_places(array)) for array in arrays]
    total, done = levels * sum(map(len, places)), 0
    for image, array, own in zip(images, arrays, places, strict=True):
        for level in range(1, levels + 1):
            source = array if level == 1 else image / str(level - 1)
            _add_level(store, source, image / str(level), own)
            done += len(own)
            if on_progress is not None:
                on_progress(done, total)
        if levels:
            _describe(store, image, levels)
    return 1 + levels


def _levels(frame_shape: tuple[int, int]) -> int:
    count, longer = 0, max(frame_shape)
    while longer > SMALLEST_EDGE and min(frame_shape) >> (count + 1):
        count, longer = count + 1, -(-longer // 2)
    return count


def _add_level(
    store: Path, source: Path, folder: Path, places: list[tuple[int, int, int]]
) -> None:
    larger = FrameArray.open(source)

    def failed(error: BaseException) -> OutputError:
        return OutputError(f"{folder}: cannot be written ({error}); check the disk's free space")

    with staged(folder, beside=store) as staging:
        height, width = (-(-edge // 2) for edge in larger.frame_shape)
        FrameArray.create(
            staging, frame_shape=(height, width), dtype=larger.dtype, compression="blosc-lz4"
        )
        smaller, in_flight = FrameArray.open(staging), InFlight(IN_FLIGHT, IN_FLIGHT_BYTES, failed)
        for place in places:
            smaller.write(place, halved(larger.read(place)), in_flight, unchanging=True)
        in_flight.wait()
        smaller.cut(larger.extent)


def halved(frame: NDArray[Any]) -> NDArray[Any]:
    """Return the means of 2×2 pixels, ((Y + 1)/2, (X + 1)/2); an odd edge is repeated."""
    height, width = frame.shape
    even = np.pad(frame, ((0, height % 2), (0, width % 2)), mode="edge")
    mean = even.reshape(even.shape[0] // 2, 2, -1, 2).mean(axis=(1, 3), dtype=np.float32)
    if frame.dtype.kind == "f":
        return np.ascontiguousarray(mean, frame.dtype)
    rounded: NDArray[Any] = np.rint(mean).astype(frame.dtype)
    return rounded


def _describe(store: Path, image: Path, levels: int) -> None:
    attributes = read_group(image)
    multiscale = attributes["ome"]["multiscales"][0]
    first = multiscale["datasets"][0]
    scale = first["coordinateTransformations"][0]["scale"]
    multiscale["datasets"] = [first] + [_dataset(scale, level) for level in range(1, levels + 1)]
    multiscale["type"] = "mean of 2x2 pixels"
    write_group(image, attributes, store=store)


def _dataset(scale: list[float], level: int) -> Mapping[str, Any]:
    factor = 2**level
    there = [*scale[:-2], *(factor * step for step in scale[-2:])]
    # The centre of the first large pixel lies between those of the small ones.
    shift = [0.0] * (len(scale) - 2) + [(factor - 1) / 2 * step for step in scale[-2:]]
    return {
        "path": str(level),
        "coordinateTransformations": [
            {"type": "scale", "scale": there},
            {"type": "translation", "translation": shift},
        ],
    }
