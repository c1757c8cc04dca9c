"""Vendors' files: read by their libraries, or refused in one line that says what to do."""

from __future__ import annotations

import numpy as np
import pytest

from quietscope import errors
from quietscope.errors import MissingExtraError
from quietscope.storage.open_options import OpenOptions
from quietscope.storage.open_stack import open_stack
from quietscope.storage.stack import StackError

SHAPE = (32, 40)


def write_czi(path, missing=(), scenes=1):
    czi = pytest.importorskip("pylibCZIrw.czi")
    with czi.create_czi(str(path)) as document:
        for scene, time, channel in np.ndindex(scenes, 3, 2):
            if (time, channel) in missing:
                continue
            pixels = np.full((*SHAPE, 1), 100 * scene + 10 * time + channel + 1, np.uint16)
            where = {"location": (1000 * scene, 0), "scene": scene} if scenes > 1 else {}
            document.write(pixels, plane={"T": time, "C": channel, "Z": 0}, **where)
        document.write_metadata(
            "cells", channel_names={0: "GFP", 1: "RFP"}, scale_x=1.083e-7, scale_y=1.083e-7
        )
    return path


def numbers_of(stack):
    return [int(stack.frame(int(i))[0, 0]) for i in stack.present_indices]


def test_czi(tmp_path):
    stack = open_stack(write_czi(tmp_path / "a.czi"))
    assert dict(stack.sizes) == {"time": 3, "channel": 2}
    assert stack.channel_names == ("GFP", "RFP")
    assert stack.pixel_size_um == pytest.approx(0.1083)
    assert numbers_of(stack) == [1, 2, 11, 12, 21, 22]


def test_a_plane_that_a_czi_does_not_hold_is_absent(tmp_path):
    stack = open_stack(write_czi(tmp_path / "a.czi", missing=[(1, 0), (2, 1)]))
    assert stack.present.tolist() == [[True, True], [False, True], [True, False]]
    assert numbers_of(stack) == [1, 2, 12, 21]


def test_scenes_are_positions(tmp_path):
    path = write_czi(tmp_path / "a.czi", scenes=2)
    stack = open_stack(path)
    assert dict(stack.sizes) == {"position": 2, "time": 3, "channel": 2}
    assert numbers_of(stack)[6:] == [101, 102, 111, 112, 121, 122]
    assert len(open_stack(path, OpenOptions(series=1))) == 6


@pytest.mark.parametrize("suffix", ["nd2", "czi", "lif"])
def test_what_is_no_such_file_is_refused_in_one_line(tmp_path, suffix):
    (tmp_path / f"a.{suffix}").write_bytes(b"rubbish" * 100)
    with pytest.raises(StackError, match="cannot be read") as caught:
        open_stack(tmp_path / f"a.{suffix}")
    assert "\n" not in str(caught.value)


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(errors, "_is_installed", lambda module: False)
    (tmp_path / "a.nd2").write_bytes(b"")
    with pytest.raises(MissingExtraError, match=r'pip install "quietscope\[vendor\]"'):
        open_stack(tmp_path / "a.nd2")


@pytest.mark.parametrize("suffix", ["oir", "vsi", "ims"])
def test_formats_that_nobody_reads_say_what_to_do(tmp_path, suffix):
    (tmp_path / f"a.{suffix}").write_bytes(b"")
    with pytest.raises(StackError, match="save it as OME-TIFF"):
        open_stack(tmp_path / f"a.{suffix}")
