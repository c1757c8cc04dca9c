"""Raw frames to the disk: our writer and recorder against ome-writers alone, in the same run.

Frames are photon noise, the same ones for all. Rounds turn the order. `writer` is `OmeZarrWriter`,
`stream` the whole way through the hook: copy, recorder, frame log. What was written stays until
the last round has ended: some file systems are slow for minutes after files were deleted. Each run
ends when its frames are on the disk itself (`os.sync`, where the system has it), since the stream
waits for this, and begins with nothing left to write.

    python benchmarks/stream_disk.py --side 2048 --frames 60 --rounds 3 --folder /data
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ome_writers import AcquisitionSettings, Dimension, OmeZarrFormat, create_stream

from quietscope.acquisition import LiveDenoiser
from quietscope.storage.atomic_output import write_json
from quietscope.storage.ome_zarr_writer import OmeZarrWriter
from quietscope.storage.written_frames import written_frames

Frames = list[NDArray[Any]]


def ome_writers_alone(folder: Path, frames: Frames, count: int) -> None:
    side = frames[0].shape[0]
    settings = AcquisitionSettings(
        root_path=str(folder / "theirs.ome.zarr"),
        format=OmeZarrFormat(backend="tensorstore"),
        dimensions=(
            Dimension(name="t", count=None, type="time"),
            Dimension(name="c", count=1, type="channel"),
            Dimension(name="z", count=1, type="space"),
            Dimension(name="y", count=side, type="space"),
            Dimension(name="x", count=side, type="space"),
        ),
        dtype="uint16",
        compression="blosc-lz4",
    )
    with create_stream(settings) as stream:
        for t in range(count):
            stream.append(frames[t % len(frames)])


def writer(folder: Path, frames: Frames, count: int) -> None:
    shape = frames[0].shape
    with OmeZarrWriter(folder / "ours.ome.zarr", frame_shape=shape, dtype="uint16") as store:
        for t in range(count):
            store.write(frames[t % len(frames)], {"time": t}, unchanging=True)
    written = written_frames(folder / "ours.ome.zarr")
    assert written is not None
    assert written.sum() == count


def stream(folder: Path, frames: Frames, count: int) -> None:
    with LiveDenoiser(output=folder / "run", mode="sink") as live:
        for t in range(count):
            live.image_process_fn(frames[t % len(frames)], {"Axes": {"time": t}, "Camera": "x"})
    assert live.report["frames_recorded"] == count


def put_on_disk() -> None:
    if hasattr(os, "sync"):
        os.sync()


VARIANTS: dict[str, Callable[[Path, Frames, int], None]] = {
    "ome-writers": ome_writers_alone,
    "writer": writer,
    "stream": stream,
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--side", type=int, default=2048)
    options.add_argument("--frames", type=int, default=60)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--folder", type=Path)
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    random = np.random.default_rng(0)
    shape = (chosen.side, chosen.side)
    frames = [random.poisson(300, shape).astype("uint16") for _ in range(4)]
    rounds = []
    names = list(VARIANTS)
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        for turn in range(chosen.rounds):
            found = {}
            for name in names[turn % 3 :] + names[: turn % 3]:
                own = Path(folder) / f"{turn} {name}"
                own.mkdir()
                put_on_disk()
                began = time.perf_counter()
                VARIANTS[name](own, frames, chosen.frames)
                put_on_disk()
                found[name] = chosen.frames / (time.perf_counter() - began)
            rounds.append(found)
            print(json.dumps({name: round(rate, 1) for name, rate in found.items()}))
    figures = {
        "hardware": "2 CPU cores",
        "side": chosen.side,
        "frames": chosen.frames,
        "ratio_to_ome_writers": {
            name: statistics.median(r[name] / r["ome-writers"] for r in rounds)
            for name in ("writer", "stream")
        },
        "frames_per_second": rounds,
    }
    print(json.dumps(figures["ratio_to_ome_writers"]))
    if chosen.out:
        write_json(chosen.out, figures)


if __name__ == "__main__":
    main()
