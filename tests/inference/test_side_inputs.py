"""One rule for the frames that a model is given: offline, live and training follow it alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quietscope.acquisition.stream.context import Context, observations
from quietscope.inference.errors import FrameMismatchError
from quietscope.inference.observation_reader import ObservationReader
from quietscope.inference.side_inputs import (
    Moment,
    other_channel_numbers,
    side_input_indices,
    side_inputs,
    stacked,
)
from quietscope.storage.axis_map import Place
from quietscope.storage.stack import Stack
from quietscope.training.data.side_inputs import other_channels_of

TIMES, CHANNELS, PLANES = 5, 3, 2


def value(time: int, channel: int, z: int) -> int:
    """What every pixel of a frame holds: where it belongs; never zero, which means absent."""
    return 1 + time * 100 + channel * 10 + z


@pytest.fixture(scope="module")
def recording() -> Stack:
    return Stack(
        path=Path("recording"),
        sizes={"time": TIMES, "channel": CHANNELS, "z": PLANES},
        frame_shape=(2, 2),
        dtype=np.dtype(np.uint16),
        read=lambda at: np.full((2, 2), value(*at), np.uint16),
        channel_names=("DAPI", "GFP", "Cy5"),
    )


def test_the_newest_frame_of_another_channel_is_the_one_that_came_before():
    """Channels arrive in order: of an earlier one there is this time point's frame already."""
    assert side_inputs(Moment(3, 1), 2, (0, 2)) == [
        Moment(2, 1),
        Moment(1, 1),
        Moment(3, 0),
        Moment(2, 2),
    ]
    assert side_inputs(Moment(0, 1), 1, (0, 2, None)) == [None, Moment(0, 0), None, None]


def test_planes_are_those_on_either_side_and_live_those_that_have_come():
    newest = Moment(2, 1, 4)
    both = [Moment(1, 1, 4), *(Moment(2, 1, z) for z in (3, 5, 2, 6)), Moment(2, 0, 4)]
    assert side_inputs(newest, 1, (0,), 2) == both
    assert side_inputs(newest, 1, (0,), 2, live=True) == [
        both[0], both[1], None, both[3], None, both[5]
    ]  # fmt: skip
    assert side_inputs(Moment(0, 0, 0), 0, (), 1) == [None, Moment(0, 0, 1)]


def test_beyond_a_z_stack_and_where_there_is_none_are_zeros(recording):
    reader = ObservationReader(recording, np.dtype(np.uint16))
    index = recording.index({"time": 3, "channel": 1, "z": 1})
    seen = reader.read(index, 1, (0,), 2)[:, 0, 0].tolist()
    expected = [value(3, 1, 1), value(2, 1, 1), value(3, 1, 0), 0, 0, 0, value(3, 0, 1)]
    assert seen == expected
    flat = replace(
        recording, sizes={"time": TIMES}, read=lambda at: np.full((2, 2), value(*at, 0, 0))
    )
    assert side_input_indices(flat, 1, 0, planes=1) == [None, None]


def test_live_the_planes_above_are_zeros_and_those_below_are_the_newest(recording):
    live = Context(lambda p: np.full((2, 2), value(*p.tcz), np.uint16))
    further = live.side_inputs(Place(None, 2, 1, 1), 0, (), 1)
    found = observations(np.ones((2, 2), np.uint16), further, len(further))[:, 0, 0].tolist()
    assert found == [1, value(2, 1, 0), 0]


moments = st.tuples(
    st.integers(0, TIMES - 1), st.integers(0, CHANNELS - 1), st.integers(0, PLANES - 1)
)


@given(moments, st.integers(0, 4), st.permutations([0, 1, 2]))
def test_offline_live_and_training_give_the_same_frames(recording, at, context, order):
    time, own, z = at
    others = [channel for channel in order if channel != own]
    index = recording.index({"time": time, "channel": own, "z": z})
    reader = ObservationReader(recording, np.dtype(np.uint16))
    offline = reader.read(index, context, others)[:, 0, 0].tolist()

    place = Place(None, time, own, z)
    live = Context(lambda p: np.full((2, 2), value(*p.tcz), np.uint16))
    further = live.side_inputs(place, context, others)
    newest = np.full((2, 2), value(time, own, z), np.uint16)
    assert observations(newest, further, len(further))[:, 0, 0].tolist() == offline

    names = recording.channel_names
    trained = recording.channel(own)
    there = trained.index({"time": time, "z": z})
    beside = other_channels_of(recording, names[own], [names[other] for other in others])
    found = [trained.frame(there)]
    found += [
        np.zeros((2, 2)) if i is None else trained.frame(i)
        for i in side_input_indices(trained, there, context)
    ]
    for other in beside:
        newest_there = other.index(there)
        found.append(np.zeros((2, 2)) if newest_there is None else other.stack.frame(newest_there))
    assert [int(frame[0, 0]) for frame in found] == offline


def test_a_frame_that_was_never_recorded_is_no_side_input(recording):
    present = np.ones((TIMES, CHANNELS, PLANES), bool)
    present[2, 1, 0] = present[3, 0, 0] = False
    killed = replace(recording, present=present)
    index = killed.index({"time": 3, "channel": 1, "z": 0})
    seen = ObservationReader(killed, np.dtype(np.uint16)).read(index, 2, (0, 2))
    assert seen[:, 0, 0].tolist() == [value(3, 1, 0), 0, value(1, 1, 0), 0, value(2, 2, 0)]


def test_absent_frames_are_zeros_and_inputs_are_not_changed():
    newest = np.full((2, 3), 7, np.uint8)
    found = stacked(newest, [None, newest], np.dtype(np.uint16))
    assert found.dtype == np.uint16
    assert found[:, 0, 0].tolist() == [7, 0, 7]
    found[:] = 1
    assert (newest == 7).all()


def test_a_channel_that_is_not_recorded_is_named(recording):
    assert other_channel_numbers(recording, ["Cy5", "DAPI"], what="the model") == (2, 0)
    with pytest.raises(FrameMismatchError, match=r"DAPI, GFP, Cy5, the model also looks at RFP"):
        other_channel_numbers(recording, ["RFP"], what="the model")
