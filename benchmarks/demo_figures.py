"""The figures of one default demo, without the paths of the machine that ran it.

    python benchmarks/demo_figures.py [quietscope-demo/report.json]

Runs `quietscope demo` in a temporary folder, unless a report of one is given, prints what the
README quotes and writes it to `results/demo.json`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from quietscope.demo.commands import demo
from quietscope.inference.runtime.providers import all_cores
from quietscope.storage.atomic_output import write_json

KEYS = (
    "frames_delivered",
    "frames_recorded",
    "frames_denoised",
    "frames_skipped_live",
    "frame_rate_hz",
    "latency_ms",
    "hook_ms",
    "provider",
    "device",
    "psnr_raw_db",
    "psnr_denoised_db",
    "trust",
    "seconds",
)
CALIBRATION = ("gain_adu_per_e", "offset_adu", "read_noise_e", "seconds")
TRAINING = ("algorithm", "preset", "steps", "seconds", "parameters", "parity_max_relative_error")


def figures(report: dict[str, Any]) -> dict[str, Any]:
    return {
        "hardware": f"{all_cores()} CPU cores",
        **{key: report[key] for key in KEYS},
        "calibration": {key: report["calibration"][key] for key in CALIBRATION},
        "training": {key: report["training"][key] for key in TRAINING},
        "retrain": {key: report["retrain"][key] for key in ("decision", "reason")},
    }


def main() -> None:
    if len(sys.argv) > 1:
        report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    else:
        with tempfile.TemporaryDirectory() as folder:
            report = dict(demo(Path(folder) / "demo", preview=False).result)
    found = figures(report)
    write_json(Path(__file__).parent / "results" / "demo.json", found)
    print(json.dumps(found, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
