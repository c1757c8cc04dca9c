"""Open with one foreign reader what `files_other_readers.py` wrote; print what it saw as JSON.

    python files_other_readers_worker.py READER FILE

Runs in an environment that holds the readers and no quietscope.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np


def by_bioio(package: str, path: str) -> list[dict]:
    """Return what a reader of bioio sees: an image for each scene."""
    reader_class = __import__(package, fromlist=["Reader"]).Reader
    reader = reader_class(path)
    found = []
    for scene in reader.scenes:
        reader.set_scene(scene)
        size = reader.physical_pixel_sizes
        found.append(
            {
                "name": scene,
                "pixels": reader.get_image_data("TCZYX")
                if hasattr(reader, "get_image_data")
                else reader.data,
                "channels": list(reader.channel_names or []),
                "size_zyx": [size.Z, size.Y, size.X],
            }
        )
    return found


def by_napari(path: str) -> list[dict]:
    """Return what napari would show."""
    from napari_ome_zarr import napari_get_reader

    found = []
    for data, details, kind in napari_get_reader(path)(path):
        if kind != "image":
            continue
        levels = data if isinstance(data, list) else [data]
        axis = details.get("channel_axis")
        pixels = np.asarray(levels[0])
        pixels = np.moveaxis(pixels, axis, 1) if axis is not None else pixels[:, None]
        names = details.get("name") or []
        scale = list(details.get("scale") or [])
        found.append(
            {
                "name": Path(path).name,
                "pixels": pixels,
                "channels": [names] if isinstance(names, str) else list(names or []),
                "size_zyx": scale[-3:],
                "levels": len(levels),
                "shown": np.asarray(details.get("contrast_limits")).reshape(-1, 2).tolist(),
            }
        )
    return found


def by_tifffile(path: str) -> list[dict]:
    """Return what ImageJ's own rules make of a TIFF."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        said, page = file.imagej_metadata, file.pages.first
        series = file.series[0]
        pixels = series.asarray()
        x, y = (page.tags[f"{axis}Resolution"].value for axis in "XY")
        ranges = said["Ranges"]
        return [
            {
                "name": "",
                "pixels": pixels if series.axes == "TZCYX" else None,
                "swap": True,
                "channels": list(said["Labels"][: said["channels"]]),
                "size_zyx": [said["spacing"], y[1] / y[0], x[1] / x[0]],
                "shown": [list(ranges[i : i + 2]) for i in range(0, len(ranges), 2)],
                "unit": said["unit"],
            }
        ]


def main() -> None:
    """Open, and print everything but the pixels; these go to a file beside."""
    reader, path, out = sys.argv[1:4]
    if reader == "napari-ome-zarr":
        images = by_napari(path)
    elif reader == "tifffile":
        images = by_tifffile(path)
    else:
        images = by_bioio(reader.replace("-", "_"), path)
    for number, image in enumerate(images):
        pixels = np.asarray(image.pop("pixels"))
        pixels = np.swapaxes(pixels, 1, 2) if image.pop("swap", False) else pixels
        np.save(f"{out}-{number}.npy", pixels)
    print(json.dumps({"version": version(reader), "images": images}))


if __name__ == "__main__":
    main()
