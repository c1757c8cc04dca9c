"""What we write is what other programs' readers see; they live in an environment of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "files_other_readers.py"
READERS = os.environ.get("QUIETSCOPE_READERS")


@pytest.mark.slow
@pytest.mark.skipif(not READERS, reason="QUIETSCOPE_READERS names no Python with bioio and napari")
def test_bioio_and_napari_see_pixels_names_sizes_and_ranges(tmp_path):
    command = [sys.executable, str(SCRIPT), "--python", READERS, "--out", str(tmp_path / "a.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
