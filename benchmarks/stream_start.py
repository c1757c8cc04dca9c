"""From the start of a process to its first denoised frame, imports and core included.

`command` is `quietscope live --demo --no-preview --frames 1`, `script` a user's own script with
`LiveDenoiser` around an acquisition of pycro-manager. The clock starts when the process is
started and stops when the file of the first denoised frame gets its content.

    python benchmarks/stream_start.py --model models/gfp --rounds 5
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from quietscope.storage.atomic_output import write_json

SCRIPT = """
import sys
from mm_test_adapters import device_adapter_path
from pycromanager import Acquisition, multi_d_acquisition_events, start_headless
from quietscope.acquisition import LiveDenoiser

folder = device_adapter_path()
start_headless(folder, folder + "/MMConfig_demo.cfg", python_backend=True)
with LiveDenoiser(model=sys.argv[1], output=sys.argv[2], force=True) as live:
    with Acquisition(image_process_fn=live.image_process_fn) as acquisition:
        acquisition.acquire(multi_d_acquisition_events(num_time_points=1))
"""


def program(variant: str, model: Path, run: Path) -> list[str]:
    """Return the command line of one variant."""
    if variant == "script":
        return [sys.executable, "-c", SCRIPT, str(model), str(run)]
    where = ["--demo", "--no-preview", "--frames", "1", "--force"]
    files = ["--model", str(model), "--out", str(run)]
    return [sys.executable, "-m", "quietscope.cli", "live", *where, *files]


def seconds_to_first_frame(variant: str, model: Path, run: Path) -> dict[str, float]:
    """Run one program; a frame's file appears under its name with the time of its content."""
    began = time.time()
    done = subprocess.run(
        program(variant, model, run), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr.strip())
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    first = run / "denoised.ome.zarr" / "0" / "c.0.0.0.0.0"
    return {
        "to_first_denoised_frame": first.stat().st_mtime - began,
        "of_these_within_the_block": report["seconds_to_first_denoised_frame"],
        "whole_program": time.time() - began,
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", type=Path, required=True, help="a bundle")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--folder", type=Path, help="where runs are written")
    options.add_argument("--out", type=Path, help="JSON file for the figures")
    chosen = options.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        for turn in range(chosen.rounds):
            found = {
                variant: seconds_to_first_frame(
                    variant, chosen.model, Path(folder) / f"{variant} {turn}"
                )
                for variant in ("command", "script")
            }
            rounds.append(found)
            print(json.dumps(found))
    figures = {
        "hardware": "2 CPU cores",
        "frame_shape": [512, 512],
        "seconds": {
            variant: {name: statistics.median(r[variant][name] for r in rounds) for name in part}
            for variant, part in rounds[0].items()
        },
        "rounds": rounds,
    }
    print(json.dumps(figures["seconds"], indent=2))
    if chosen.out:
        write_json(chosen.out, figures)


if __name__ == "__main__":
    main()
