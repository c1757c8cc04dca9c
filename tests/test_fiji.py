"""The macro for Fiji, in ImageJ without a window: TIFF in, TIFF out."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import tifffile

MACRO = Path(__file__).parent.parent / "examples" / "denoise.ijm"
JARS = (Path("/usr/share/java/ij.jar"),)
"""Where Debian's package `imagej` has it."""


@pytest.fixture
def imagej() -> list[str]:
    jar = next((jar for jar in JARS if jar.is_file()), None)
    screen = shutil.which("xvfb-run")  # ImageJ asks for one even where it shows nothing
    if jar is None or screen is None:
        pytest.skip("no ImageJ here (Debian: apt-get install imagej xvfb xauth)")
    return [screen, "-a", "java", "-cp", str(jar), "ij.ImageJ", "-batch", str(MACRO)]


@pytest.mark.long
def test_the_macro_denoises_a_tiff(imagej, make_bundle, tmp_path):
    model = make_bundle()
    frames = np.random.default_rng(0).poisson(200, (4, 48, 64)).astype(np.uint16)
    movie, clean = tmp_path / "movie.tif", tmp_path / "clean.tif"
    tifffile.imwrite(movie, frames, imagej=True, metadata={"axes": "TYX"})
    program = shutil.which("quietscope", path=sysconfig.get_path("scripts"))
    words = f"quietscope={program} model={model} in={movie} out={clean}"
    done = subprocess.run([*imagej, words], capture_output=True, text=True, timeout=120)
    written = tifffile.imread(clean)
    assert written.shape == frames.shape
    assert written.std() < frames.std() / 2
    # What ImageJ itself says of the image that it opened.
    said = re.search(r"frames (\d+), mean ([\d.]+)", done.stdout)
    assert said, done.stdout + done.stderr
    assert int(said[1]) == 4
    assert float(said[2]) == pytest.approx(written[0].mean(), rel=0.01)


def test_the_page_shows_the_macro_that_is_tested():
    page = (MACRO.parent.parent / "docs" / "fiji.md").read_text(encoding="utf-8")
    call = re.search(r'exec\(quietscope, "denoise".*?\)', MACRO.read_text(encoding="utf-8"))
    assert call is not None
    assert call[0] in page
