"""A long run: memory over 100,000 frames, and time from the start to the first denoised frame.

The core's own test device is the camera (it writes the number of each image into its pixels and
takes no time of its own), a copying denoiser stands for the model, frames are consumed (`sink`).

    python benchmarks/stream_long_run.py --frames 100000 --folder /data
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from mm_test_adapters import device_adapter_path
from numpy.typing import NDArray
from pycromanager import Acquisition

from quietscope.acquisition import LiveDenoiser
from quietscope.acquisition.microscope.core import MicroscopeSettings, open_microscope
from quietscope.storage.atomic_output import write_json
from quietscope.storage.written_frames import written_frames

CAMERA = """
Property,Core,Initialize,0
Device,Hub,SequenceTester,THub
Device,Numbering,SequenceTester,TCamera-0
Parent,Numbering,Hub
Property,Numbering,ImageMode,MachineReadable
Property,Numbering,ImageWidth,128
Property,Numbering,ImageHeight,128
Property,Core,Initialize,1
Property,Core,Camera,Numbering
"""
SEQUENCE = 1000


class Copying:
    context_frames = 0

    def __init__(self, frame_shape: tuple[int, int]) -> None:
        self.frame_shape = frame_shape

    def denoise(self, observations: NDArray[Any], out: NDArray[np.float32]) -> None:
        out[:] = observations[0]

    def close(self) -> None:
        pass


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--frames", type=int, default=100_000)
    options.add_argument("--folder", type=Path)
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    process = psutil.Process()
    memory_mb: dict[int, float] = {}
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        config = Path(folder) / "camera.cfg"
        config.write_text(CAMERA, encoding="utf-8")
        settings = MicroscopeSettings(mm_dir=Path(device_adapter_path()), config=config)
        run = Path(folder) / "run"
        with open_microscope(settings):
            began = time.perf_counter()
            with LiveDenoiser(Copying, run, mode="sink") as live:

                def hook(image: Any, metadata: Any) -> Any:
                    index = metadata["Axes"]["time"]
                    if index % (chosen.frames // 20) == 0:
                        memory_mb[index] = process.memory_info().rss / 2**20
                    return live.image_process_fn(image, metadata)

                with Acquisition(image_process_fn=hook) as acquisition:
                    for first in range(0, chosen.frames, SEQUENCE):
                        times = range(first, min(first + SEQUENCE, chosen.frames))
                        acquisition.acquire([{"axes": {"time": t}} for t in times])
                        while live.report["frames_delivered"] < first - SEQUENCE:
                            time.sleep(0.01)  # events wait in the engine's memory, not in ours
            seconds = time.perf_counter() - began
        written = written_frames(run / "raw.ome.zarr")
        assert written is not None
        report = live.report
        assert written.all(), "a frame is missing"
        assert written.size == report["frames_recorded"] == chosen.frames
        assert report["frames_denoised"] == chosen.frames
    settled = [mb for index, mb in memory_mb.items() if index >= chosen.frames // 10]
    figures = {
        "hardware": "2 CPU cores",
        "frames": chosen.frames,
        "frame_shape": [128, 128],
        "seconds": seconds,
        "frames_per_second": report["frame_rate_hz"],
        "memory_growth_mb": max(settled) - settled[0],
        "memory_mb": memory_mb,
        "bytes_of_all_frames_mb": chosen.frames * 128 * 128 / 2**20,
        "frames_skipped_live": report["frames_skipped_live"],
        "frames_denoised": report["frames_denoised"],
        "hook_ms": report["hook_ms"],
    }
    print(json.dumps(figures, indent=2))
    if chosen.out:
        write_json(chosen.out, figures)


if __name__ == "__main__":
    main()
