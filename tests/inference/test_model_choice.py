"""Which model serves which channel: one rule for offline and live."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quietscope.acquisition.stream.channel_denoisers import ChannelDenoisers
from quietscope.calibration.errors import CameraMismatchError
from quietscope.calibration.fingerprint import CameraFingerprint
from quietscope.inference.errors import BundleError, InferenceError
from quietscope.inference.model_choice import EVERY_CHANNEL, open_models, parse_models
from quietscope.inference.offline.channel_models import ChannelModels
from quietscope.storage.stack import Stack


def recording(*names: str, channels: int = 1) -> Stack:
    return Stack(
        path=Path("recording"),
        sizes={"time": 1, "channel": max(channels, len(names))},
        frame_shape=(8, 8),
        dtype=np.dtype(np.uint16),
        read=lambda _: np.zeros((8, 8), np.uint16),
        channel_names=names,
    )


def test_a_channels_own_model_comes_before_the_one_of_every_channel(make_bundle):
    own, every = make_bundle("own"), make_bundle("every")
    choice = open_models({"GFP": own, EVERY_CHANNEL: every})
    assert choice.of("GFP").path == own
    assert choice.of("DAPI").path == choice.of(None).path == every
    assert choice.names == ("GFP",)
    assert open_models(None).of("GFP") is None
    assert not open_models(None)


@pytest.mark.parametrize("given", ["1", 1])
def test_a_channel_without_a_name_goes_by_its_number_on_every_road(make_bundle, given):
    bundle = make_bundle()
    live = ChannelDenoisers({given: bundle})
    offline = ChannelModels.open(recording(channels=2), {given: bundle})
    assert [live.model(channel) is not None for channel in (0, 1)] == [False, True]
    assert [offline.denoises({"channel": channel}) for channel in (0, 1)] == [False, True]
    assert set(live.identities(["0", "1"])) == set(offline.identities()) == {"1"}


def test_offline_and_live_choose_the_same(make_bundle):
    models = {"GFP": make_bundle("gfp"), "DAPI": make_bundle("dapi")}
    stack = recording("DAPI", "GFP", "Cy5")
    live, offline = ChannelDenoisers(models), ChannelModels.open(stack, models)
    for number, name in enumerate(stack.channel_names):
        chosen = offline.by_channel[number]
        assert live.model(name) == chosen
        assert (chosen is None) == (name == "Cy5")
    assert live.identities(stack.channel_names) == offline.identities()


def test_a_model_of_a_channel_that_there_is_not_is_refused(make_bundle):
    with pytest.raises(InferenceError, match=r"channels DAPI, GFP, models were given for RFP"):
        ChannelModels.open(recording("DAPI", "GFP"), {"RFP": make_bundle()})
    with pytest.raises(InferenceError, match="models were given for none"):
        ChannelModels.open(recording("DAPI", "GFP"), {})


def test_offline_wants_bundles(make_bundle):
    class Own:
        context_frames = 0
        frame_shape = (8, 8)

    with pytest.raises(InferenceError, match="expected model bundles"):
        ChannelModels.open(recording(), Own())
    with pytest.raises(BundleError, match="no model bundle"):
        open_models("nowhere")


def test_another_camera_is_refused_once_for_each_model(make_bundle):
    bundle = make_bundle(camera="left", gain_setting="2")
    choice = open_models({"GFP": bundle, "DAPI": bundle})
    running = CameraFingerprint(camera="right", gain_setting="2")
    with pytest.raises(CameraMismatchError, match="camera is right, calibrated with left"):
        choice.require_camera(running, force=False)
    assert choice.require_camera(running, force=True) == ["camera is right, calibrated with left"]


def test_the_option_reads_one_bundle_or_one_for_each_channel(tmp_path):
    assert parse_models(["models/gfp"]) == Path("models/gfp")
    assert parse_models(["GFP=a b", "DAPI=c"]) == {"GFP": Path("a b"), "DAPI": Path("c")}
    (tmp_path / "a=b").mkdir()
    assert parse_models([str(tmp_path / "a=b")]) == tmp_path / "a=b"
    for wrong in (["a", "b"], ["=a"], ["GFP="], ["GFP=a", "GFP=b"]):
        with pytest.raises(InferenceError, match="is not CHANNEL=BUNDLE"):
            parse_models(wrong)
