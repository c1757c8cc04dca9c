"""Heads and indices that a disk or a stranger has changed: read, or refused in one line."""

from __future__ import annotations

import json
import random
import shutil
import struct
import tracemalloc

import numpy as np
import pytest
import tifffile

from quietscope.errors import QuietscopeError
from quietscope.storage.export_stack import export_stack
from quietscope.storage.open_stack import open_stack
from quietscope.storage.stack import stack_from_array
from quietscope.storage.writers.open_writer import OutputForm

PIXELS = (1 + np.arange(4)[:, None, None] + np.zeros((24, 20))).astype(np.uint16)
HEAD_BYTES = 4000
NUMBERS = (0, 1, 2**16, 2**31 - 1, 2**32 - 1)
VALUES = (None, -1, 0, 1e308, 2**63, "", [], {}, "x" * 9999, True, [1] * 999, "../../secret")
EACH = 12
LARGEST_BYTES = 100e6


def bytes_changed(data, rng):
    changed = bytearray(data)
    kind = rng.randrange(4)
    if kind == 0:
        return data[: rng.randrange(len(data))]
    for _ in range(rng.choice([1, 2, 16])):
        place = rng.randrange(min(len(data), HEAD_BYTES) - 4)
        if kind == 1:
            changed[place] = rng.randrange(256)
        elif kind == 2:
            changed[place : place + 4] = struct.pack("<I", rng.choice(NUMBERS))
        else:
            other = rng.randrange(min(len(data), HEAD_BYTES))
            changed[place], changed[other] = changed[other], changed[place]
    return bytes(changed)


def values_in(found):
    inside = found.items() if isinstance(found, dict) else enumerate(found)
    for key, value in list(inside):
        yield found, key
        if isinstance(value, dict | list):
            yield from values_in(value)


def json_changed(text, rng):
    document = json.loads(text)
    holder, key = rng.choice(list(values_in(document)))
    if isinstance(holder, dict) and rng.random() < 0.3:
        del holder[key]
    else:
        holder[key] = rng.choice(VALUES)
    return json.dumps(document)


def made(kind, folder):
    if kind in {"NDTiff", "OME-Zarr"}:
        path = folder / ("nd" if kind == "NDTiff" else "a.ome.zarr")
        export_stack(stack_from_array(PIXELS), path, OutputForm("uint16", ndtiff=kind == "NDTiff"))
        return path
    options = {"metadata": {"axes": "TYX"}, "imagej": kind == "ImageJ"}
    path = folder / ("a.ome.tif" if kind == "OME-TIFF" else "a.tif")
    tifffile.imwrite(path, PIXELS, photometric="minisblack", **options)
    return path


def read_or_refused(path):
    """Read all that is there; return why it was refused. Any other error is a defect."""
    try:
        stack = open_stack(path)
        for index in stack.present_indices:
            stack.frame(int(index))
    except QuietscopeError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", ["OME-TIFF", "ImageJ", "NDTiff", "OME-Zarr"])
def test_a_changed_file_is_read_or_refused_in_one_line(tmp_path, kind, caplog):
    whole, rng = made(kind, tmp_path), random.Random(kind)
    assert len(open_stack(whole)) == len(PIXELS)
    for number in range(EACH):
        damaged = tmp_path / f"{number} {whole.name}"
        copy = shutil.copytree if whole.is_dir() else shutil.copy
        copy(whole, damaged)
        files = sorted(damaged.rglob("*.json" if kind == "OME-Zarr" else "*"))
        file = rng.choice(files) if files else damaged
        if kind == "OME-Zarr":
            file.write_text(json_changed(file.read_text(), rng))
        else:
            file.write_bytes(bytes_changed(file.read_bytes(), rng))
        tracemalloc.start()
        said = read_or_refused(damaged)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert "\n" not in said
        assert peak < LARGEST_BYTES
    assert not caplog.records  # no remarks of a library's own
