"""Any order of record, crash, denoise, overwrite and move, for as long as it is given.

Runs the machine of `tests/test_any_order.py` with new random orders of 40 steps each: after every
step nothing recorded may be gone or altered, and every report has to say what the disk holds. It
ends with the first order that breaks this, printed step by step.

    python benchmarks/reliability_soak.py --out benchmarks/results/reliability_soak.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from quietscope.storage.atomic_output import write_json

TESTS = Path(__file__).resolve().parent.parent / "tests" / "test_any_order.py"
PYTEST = ("-n", "0", "-q", "-o", "faulthandler_timeout=0")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--minutes", type=float, default=60.0)
    options.add_argument("--out", type=Path, help="JSON file for the figures")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "result.json"
        soak = {
            "QUIETSCOPE_SOAK_MINUTES": str(chosen.minutes),
            "QUIETSCOPE_SOAK_RESULT": str(found),
        }
        said = subprocess.run(
            [sys.executable, "-m", "pytest", *PYTEST, str(TESTS), "-k", "for_long"],
            env={**os.environ, **soak},
            check=False,
        )
        if said.returncode:
            raise SystemExit("an order of steps broke the promise: see above")
        result = json.loads(found.read_text(encoding="utf-8"))
    result |= {"platform": platform.platform(), "cores": os.cpu_count()}
    print(json.dumps(result, indent=2))
    if chosen.out is not None:
        write_json(chosen.out, result)


if __name__ == "__main__":
    main()
