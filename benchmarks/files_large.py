"""How fast stacks of 20 GB open in each format, and how much memory denoising them takes.

    python benchmarks/files_large.py [--gigabytes 20] [--frames 40] [--only FORMAT] [--opening]

The files are sparse: what is written are their directories and indices, not their pixels, so that
they take hardly any disk. Each is opened, read and denoised in a process of its own. Denoising all
of it would take an hour per format on two cores, so the first `--frames` of it are, by a Gaussian
filter, and a few by a small model: memory has to be flat by then. The result goes to
`benchmarks/results/`; a bar that is missed is printed, and the exit status is 1. `--opening`
measures opening anew and keeps the rest; it is told with the processor's time beside the wall
clock's, which also counts what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

EDGE = 2048
FRAME_BYTES = EDGE * EDGE * 2
READ_FRAMES = 40
MODEL_FRAMES = 5
OPENS_WITHIN_S, PEAK_MB, GROWTH_MB = 2.0, 1000, 64
RESULTS = Path(__file__).parent / "results" / "files_large.json"

CHILD = """
import json, sys, time
import psutil
began = time.perf_counter()
from quietscope.storage.open_stack import open_stack
imported, imported_cpu = time.perf_counter(), time.process_time()
stack = open_stack(sys.argv[1])
opened, opened_cpu = time.perf_counter(), time.process_time()
count = int(sys.argv[2])
for index in stack.present_indices[:: max(1, len(stack) // count)]:
    stack.frame(int(index))
done = time.perf_counter()
print(json.dumps({
    "frames": len(stack), "absent": stack.absent,
    "open_s": round(opened - imported, 3), "open_cpu_s": round(opened_cpu - imported_cpu, 3),
    "import_s": round(imported - began, 3),
    "ms_per_frame": round(1e3 * (done - opened) / count, 2),
    "rss_mb": round(psutil.Process().memory_info().rss / 2**20),
}))
"""


DENOISE = """
import json, sys, time
from dataclasses import replace
import numpy as np, psutil
from quietscope.inference.offline.denoise_by_method import denoise_by_method
from quietscope.inference.offline.denoise_stack import denoise_stack
from quietscope.storage.open_stack import open_stack
from quietscope.storage.writers.open_writer import OutputForm
path, out, bundle, count = *sys.argv[1:4], int(sys.argv[4])
stack = open_stack(path)
part = np.zeros(len(stack), bool)
part[:count] = True
stack = replace(stack, present=part.reshape(tuple(stack.sizes.values())))
process, rss = psutil.Process(), []
watch = lambda done, total: rss.append(process.memory_info().rss)
began = time.perf_counter()
if bundle:
    result = denoise_stack(stack, bundle, out, provider="cpu", threads=1, on_progress=watch)
else:
    result = denoise_by_method(
        stack, "gaussian", out, strength=1.0, form=OutputForm("uint16"), on_progress=watch
    )
print(json.dumps({
    "frames": len(rss), "of_frames": len(stack),
    "ms_per_frame": round(1e3 * (time.perf_counter() - began) / len(rss), 1),
    "peak_rss_mb": round(max(rss) / 2**20),
    "growth_mb": round((rss[-1] - rss[len(rss) // 4]) / 2**20, 1),
}))
"""


def bigtiff(path: Path, frames: int, description: bytes = b"") -> None:
    """Write the directories of a BigTIFF of uncompressed pages, each before its pixels."""
    end = 16 + frames * (8 + 20 * 11 + 8 + FRAME_BYTES)
    tags = [
        (256, 4, EDGE), (257, 4, EDGE), (258, 3, 16), (259, 3, 1), (262, 3, 1),
        (270, 2, end),
        (273, 16, 0), (277, 3, 1), (278, 4, EDGE), (279, 16, FRAME_BYTES), (339, 3, 1),
    ]  # fmt: skip
    size = 8 + 20 * len(tags) + 8
    with path.open("wb") as file:
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16))
        for frame in range(frames):
            start = 16 + frame * (size + FRAME_BYTES)
            file.seek(start)
            following = start + size + FRAME_BYTES if frame + 1 < frames else 0
            body = struct.pack("<Q", len(tags))
            for code, kind, value in tags:
                value = start + size if code == 273 else value
                count = 1
                if code == 270:
                    here = description if frame == 0 else b""
                    count, value = (len(here) + 1, end) if here else (1, 0)
                body += struct.pack("<HHQQ", code, kind, count, value)
            file.write(body + struct.pack("<Q", following))
        file.seek(end)
        file.write(description + b"\0")


def ome_tiff(path: Path, frames: int) -> None:
    """Write the same with OME-XML that tells of every plane by itself, as Micro-Manager does."""
    planes = "".join(
        f'<TiffData IFD="{t}" FirstT="{t}" FirstC="0" FirstZ="0" PlaneCount="1"/>'
        for t in range(frames)
    )
    bigtiff(
        path,
        frames,
        (
            '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
            '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" '
            f'SizeX="{EDGE}" SizeY="{EDGE}" SizeZ="1" SizeC="1" SizeT="{frames}">'
            f'<Channel ID="Channel:0:0"/>{planes}</Pixels></Image></OME>'
        ).encode(),
    )


def ome_zarr(path: Path, frames: int, separator: str) -> None:
    """Write the metadata of an OME-Zarr, and for each chunk a sparse file of its size."""
    import zarr

    group = zarr.open_group(str(path), mode="w")
    array = group.create_array(
        "0", shape=(frames, 1, 1, EDGE, EDGE), chunks=(1, 1, 1, EDGE, EDGE), dtype="uint16",
        compressors=None, chunk_key_encoding={"name": "default", "separator": separator},
    )  # fmt: skip
    axes = [{"name": name} for name in "tczyx"]
    group.attrs["ome"] = {
        "version": "0.5", "multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]
    }  # fmt: skip
    for frame in range(frames):
        chunk = path / "0" / array.metadata.encode_chunk_key((frame, 0, 0, 0, 0))
        chunk.parent.mkdir(parents=True, exist_ok=True)
        with chunk.open("wb") as file:
            file.truncate(FRAME_BYTES)


def ndtiff(path: Path, frames: int) -> None:
    """Write an NDTiff's index and sparse files of up to 4 GB."""
    path.mkdir()
    per_file = 4 * 2**30 // FRAME_BYTES - 1
    summary = json.dumps({"PixelSizeUm": 0.1}).encode()
    index = b""
    for number in range(-(-frames // per_file)):
        name = f"large_NDTiffStack{f'_{number}' if number else ''}.tif"
        with (path / name).open("wb") as file:
            file.write(struct.pack("<2sHI", b"II", 42, 64))
            file.write(struct.pack("<IIIII", 483729, 3, 3, 2355492, len(summary)) + summary)
            file.truncate(4096 + per_file * FRAME_BYTES)
        for place in range(min(per_file, frames - number * per_file)):
            axes = json.dumps({"time": number * per_file + place}).encode()
            index += struct.pack("<I", len(axes)) + axes
            index += struct.pack("<I", len(name)) + name.encode()
            index += struct.pack("<8I", 4096 + place * FRAME_BYTES, EDGE, EDGE, 1, 0, 28, 2, 0)
    (path / "NDTiff.index").write_bytes(index)


def folder_of_images(path: Path, frames: int) -> None:
    """Write one sparse TIFF for each frame."""
    import tifffile

    path.mkdir()
    model = path / "t00000.tif"
    tifffile.imwrite(model, np.zeros((EDGE, EDGE), np.uint16))
    size = model.stat().st_size
    head = model.read_bytes()[: size - FRAME_BYTES]
    for frame in range(frames):
        with (path / f"t{frame:05}.tif").open("wb") as file:
            file.write(head)
            file.truncate(size)


def child(program: str, *words: object) -> dict[str, float]:
    """Run a measurement in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def small_model(folder: Path) -> Path:
    """Return a bundle whose weights do not matter: its memory does."""
    from quietscope.acquisition.microscope.specimen import CameraLaw, Specimen
    from quietscope.storage.stack import stack_from_array
    from quietscope.training.options import TrainingOptions
    from quietscope.training.train import train

    specimen = Specimen((128, 128), CameraLaw(0.5, 100.0, 2.0))
    stack = stack_from_array(np.stack([specimen.observe(index) for index in range(24)]))
    train([stack], folder, TrainingOptions(preset="fast", steps=2))
    return folder


def missed(name: str, found: dict[str, dict[str, float]]) -> list[str]:
    """Return which bars a format misses."""
    lines = []
    seconds = min(found["opened"]["open_s"], found["opened"]["open_cpu_s"])
    if seconds > OPENS_WITHIN_S:
        lines.append(f"{name}: opens in {seconds} s, not {OPENS_WITHIN_S}")
    for by in ("gaussian", "model"):
        if found[by]["peak_rss_mb"] > PEAK_MB or found[by]["growth_mb"] > GROWTH_MB:
            lines.append(f"{name}, {by}: {found[by]}, expected {PEAK_MB} MB, growth {GROWTH_MB}")
    return lines


def main() -> None:
    """Write, measure and remove one file after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=20)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--only", default=None)
    parser.add_argument("--opening", action="store_true")
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    frames = int(given.gigabytes * 1e9 / FRAME_BYTES)
    work = Path(tempfile.mkdtemp(prefix="large files ", dir=given.folder))
    kinds = {
        "BigTIFF": (work / "a.tif", bigtiff),
        "OME-TIFF": (work / "a.ome.tif", ome_tiff),
        "OME-Zarr, flat names": (work / "a.zarr", lambda p, n: ome_zarr(p, n, ".")),
        "OME-Zarr, nested names": (work / "b.zarr", lambda p, n: ome_zarr(p, n, "/")),
        "NDTiff": (work / "nd", ndtiff),
        "folder of images": (work / "images", folder_of_images),
    }
    found: dict[str, object] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores", "gigabytes": given.gigabytes
    }  # fmt: skip
    if (given.only or given.opening) and RESULTS.is_file():
        found = json.loads(RESULTS.read_text(encoding="utf-8"))
    misses = []
    try:
        model = work / "model" if given.opening else small_model(work / "model")
        for name, (path, write) in kinds.items():
            if given.only not in {None, name}:
                continue
            write(path, frames)
            out = work / "out.ome.zarr"
            kept = dict(found.get(name, {})) if given.opening else {}  # type: ignore[call-overload]
            told = {**kept, "opened": child(CHILD, path, READ_FRAMES)}
            for by, bundle, count in (
                ("gaussian", "", given.frames), ("model", model, MODEL_FRAMES)
            )[: 0 if given.opening else None]:  # fmt: skip
                told[by] = child(DENOISE, path, out, bundle, count)
                shutil.rmtree(out)
            found[name] = told
            misses += missed(name, told)
            print(f"{name}: {told}", flush=True)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print("\n".join(misses) or "every bar is met")
    sys.exit(bool(misses))


if __name__ == "__main__":
    main()
