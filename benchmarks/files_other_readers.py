"""Do other programs' readers see what we write? Pixels, channels' names, sizes, display ranges.

    python benchmarks/files_other_readers.py --python READERS/bin/python

READERS is an environment with `pip install bioio bioio-ome-zarr bioio-ome-tiff napari-ome-zarr`:
their pins are not ours. Written are an OME-Zarr with and without smaller resolutions, an OME-TIFF
(two positions each) and an ImageJ hyperstack; what each reader sees of them goes to
`benchmarks/results/`. The exit status is 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from quietscope.storage.display_range import display_ranges
from quietscope.storage.export_stack import export_stack
from quietscope.storage.stack import Stack, stack_from_array
from quietscope.storage.writers.open_writer import OutputForm

WORKER = Path(__file__).with_name("files_other_readers_worker.py")
RESULTS = Path(__file__).parent / "results" / "files_other_readers.json"
NAMES, SIZE_ZYX = ("GFP", "RFP"), (0.5, 0.1083, 0.1083)
SHAPE = (300, 280)
READS_PIXELS_ONLY = {"bioio-tifffile"}
"""By its own description: no OME-XML, and no labels of ImageJ."""


def recording(positions: int) -> Stack:
    """Return noise of which every frame differs."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(90, 4000, (positions, 3, 2, 2, *SHAPE)).astype(np.uint16)
    stack = stack_from_array(pixels, axes=("position", "time", "channel", "z"))
    stack = stack if positions > 1 else stack_from_array(pixels[0], axes=("time", "channel", "z"))
    return replace(
        stack,
        channel_names=NAMES,
        pixel_size_yx_um=SIZE_ZYX[1:],
        z_step_um=SIZE_ZYX[0],
        time_interval_s=2.0,
    )


def expected(stack: Stack) -> list[np.ndarray]:
    """Return the pixels of each position, (T, C, Z, Y, X)."""
    whole = stack.frames(range(len(stack))).reshape(-1, 3, 2, 2, *SHAPE)
    return list(whole)


def seen(python: str, reader: str, path: Path, work: Path) -> dict:
    """Return what a reader sees, or why it sees nothing."""
    out = work / f"{reader}-{path.name}"
    done = subprocess.run(
        [python, "-P", str(WORKER), reader, str(path), str(out)], capture_output=True, text=True
    )
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1:]}
    found = json.loads(done.stdout.splitlines()[-1])
    for number, image in enumerate(found["images"]):
        image["pixels"] = np.load(f"{out}-{number}.npy")
    return found


def compared(found: dict, stack: Stack, chosen: int | None) -> dict:
    """Return which of the facts agree; of one position where that was opened."""
    if "error" in found:
        return found
    images, truth = found["images"], expected(stack)
    truth = truth if chosen is None else truth[chosen : chosen + 1]
    agree = {
        "pixels": len(images) == len(truth)
        and all(np.array_equal(i["pixels"], t) for i, t in zip(images, truth, strict=True)),
        "channels": not stack.channel_names
        or all(_names(i["channels"]) == list(NAMES) for i in images),
        "sizes": all(
            np.allclose([n or np.nan for n in i["size_zyx"]], SIZE_ZYX, rtol=1e-4) for i in images
        ),
    }
    if any("shown" in image for image in images):
        ranges = np.asarray(display_ranges(stack))
        agree["display ranges"] = all(np.allclose(i["shown"], ranges, rtol=1e-4) for i in images)
    levels = {image["levels"] for image in images if "levels" in image}
    told = {"levels": max(levels)} if levels else {}
    return {"version": found["version"], "images": len(images), **told, **agree}


def _names(told: list[str]) -> list[str]:
    return [name.rpartition(":")[2].strip() for name in told]


def main() -> None:
    """Write, open elsewhere, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    one, two = recording(1), recording(2)
    nameless = replace(one, channel_names=())
    u16, readers = OutputForm("uint16"), ("napari-ome-zarr", "bioio-ome-zarr")
    cases = {
        "OME-Zarr": ("a.ome.zarr", one, u16, readers),
        "OME-Zarr with pyramid": (
            "pyramid.ome.zarr", one, replace(u16, pyramid=True),
            readers,
        ),
        "OME-Zarr, second of two positions": ("two.ome.zarr/1", two, u16, ("bioio-ome-zarr",)),
        "OME-Zarr, channels without names": ("nameless.ome.zarr", nameless, u16, readers),
        "OME-TIFF": ("a.ome.tif", one, u16, ("bioio-ome-tiff", "bioio-tifffile")),
        "OME-TIFF, two positions": ("two.ome.tif", two, u16, ("bioio-ome-tiff",)),
        "ImageJ": ("a.tif", one, replace(u16, imagej=True), ("tifffile", "bioio-tifffile")),
    }  # fmt: skip
    results: dict[str, dict] = {}
    with tempfile.TemporaryDirectory(prefix="other readers ") as folder:
        for case, (file, stack, form, foreign) in cases.items():
            store, _, inside = file.partition("/")
            export_stack(stack, Path(folder) / store, form)
            chosen = int(inside) if inside else None
            for reader in foreign:
                found = seen(given.python, reader, Path(folder) / file, Path(folder))
                told = compared(found, stack, chosen)
                if reader in READS_PIXELS_ONLY:
                    told = {name: told[name] for name in ("version", "images", "pixels")}
                results.setdefault(case, {})[reader] = told
                print(f"{case}, {reader}: {told}", flush=True)
    given.out.write_text(json.dumps(results, indent=2, default=str) + "\n", encoding="utf-8")
    facts = [told for readers in results.values() for told in readers.values()]
    sys.exit(
        not all(value is not False and "error" not in t for t in facts for value in t.values())
    )


if __name__ == "__main__":
    main()
