"""The demo's proof that raw is what the camera gave can fail."""

from __future__ import annotations

import numpy as np
import pytest

from quietscope.acquisition.errors import AcquisitionError
from quietscope.demo.scoring import GivenFrames
from quietscope.storage.ome_zarr_writer import OmeZarrWriter


def record(run, frames):
    store = run / "raw.ome.zarr"
    with OmeZarrWriter(store, frame_shape=(16, 16), dtype="uint16", overwrite=True) as writer:
        for index, frame in enumerate(frames):
            writer.write(frame, {"time": index})


def test_what_was_given_is_found_on_the_disk(tmp_path):
    frames = np.random.default_rng(0).integers(0, 4096, (5, 16, 16), dtype=np.uint16)
    given = GivenFrames()
    for index, frame in enumerate(frames):
        assert given.note(index, frame) is frame
    record(tmp_path, frames)
    given.verify(tmp_path)
    changed = frames.copy()
    changed[3, 7, 7] ^= 1
    record(tmp_path, changed)
    with pytest.raises(AcquisitionError, match="raw frame 3 differs"):
        given.verify(tmp_path)
    record(tmp_path, frames[:4])
    with pytest.raises(AcquisitionError, match="raw frame 4 differs"):
        given.verify(tmp_path)
