"""Other channels as further input: they help where they share structure, and else do no harm."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from quietscope.calibration.fit_camera import fit_camera
from quietscope.calibration.noise_files import load_noise_model
from quietscope.inference.errors import FrameMismatchError
from quietscope.inference.evaluation.evaluate import evaluate
from quietscope.inference.offline.denoise_stack import denoise_stack
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.storage.atomic_output import OutputError
from quietscope.storage.open_stack import open_stack
from quietscope.storage.stack import stack_from_array
from quietscope.training.channels import plan_channels, train_channels
from quietscope.training.data.augmentation import augmented
from quietscope.training.data.recordings import load_recordings
from quietscope.training.data.side_inputs import SideInputs, channel_name, other_channels_of
from quietscope.training.errors import TrainingDataError, TrainingError
from quietscope.training.options import InputPlanes, TrainingOptions
from quietscope.training.retraining.comparison import compare
from quietscope.training.retraining.gate import judge
from quietscope.training.train import fit, train

SIDE = 96
FRAMES = 24
QUICK = TrainingOptions(preset="fast", steps=200, batch=8, patch=48)


pytestmark = pytest.mark.usefixtures("one_thread")


def camera(photoelectrons: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    electrons = rng.poisson(photoelectrons) + 1.5 * rng.standard_normal(photoelectrons.shape)
    return np.clip(np.rint(100 + 2 * electrons), 0, 65535).astype(np.uint16)


def structure(seed: int) -> np.ndarray:
    """Rods that drift, (T, Y, X), at most about 1."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    out = np.full((FRAMES, SIDE, SIDE), 0.1)
    for _ in range(20):
        (cy, cx), (vy, vx) = rng.uniform(0, SIDE, 2), rng.normal(0, 0.4, 2)
        size, angle, height = (
            rng.uniform(1.5, 4),
            rng.uniform(0, np.pi),
            rng.uniform(0.4, 1),
        )
        for t in range(FRAMES):
            v, u = y - cy - vy * t, x - cx - vx * t
            along = v * np.cos(angle) + u * np.sin(angle)
            across = u * np.cos(angle) - v * np.sin(angle)
            out[t] += height * np.exp(-(along**2 / 18 + across**2 / 2) / size**2)
    return out


def two_channels(bright, dim, path="two channels"):
    pixels = np.stack([camera(60 * bright, 1), camera(5 * dim, 2)], axis=1)
    stack = stack_from_array(pixels, path=path, axes=("time", "channel"))
    return dataclasses.replace(stack, channel_names=("DAPI", "GFP"))


@pytest.fixture(scope="module")
def noise_model():
    flat = np.ones((40, 64, 64))
    levels = [
        stack_from_array(camera(level * flat, level), path=f"level {level}")
        for level in (3, 10, 40, 160)
    ]
    return fit_camera(levels, dark=stack_from_array(camera(0 * flat, 9), path="dark")).noise_model


@pytest.fixture(scope="module")
def scene():
    return structure(1)


def decibels_of_gfp(bundle, stack, dim, offset_adu, *, with_other_channel=True) -> float:
    other_channels = len(bundle.manifest.other_channels)
    out = np.empty((2, SIDE, SIDE), np.float32)
    truth = offset_adu + 2 * 5 * dim
    errors = []
    with OnnxDenoiser(bundle, (SIDE, SIDE), provider="cpu") as denoiser:
        assert denoiser.context_frames == other_channels
        for t in range(0, FRAMES, 3):
            planes = np.zeros((1 + other_channels, SIDE, SIDE), np.uint16)
            planes[0] = stack.frame(stack.index({"time": t, "channel": 1}))
            if other_channels and with_other_channel:
                planes[1] = stack.frame(stack.index({"time": t, "channel": 0}))
            denoiser.denoise(planes, out)
            errors.append(float(((out[0] - truth[t]) ** 2).mean()))
    return 10 * np.log10(np.ptp(truth) ** 2 / np.mean(errors))


def trained(stack, noise_model, out, *other_channels, steps=QUICK.steps):
    options = dataclasses.replace(QUICK, other_channels=other_channels, steps=steps)
    # By its number: a model knows its channel by the name.
    return train([stack], out, options, noise_model=noise_model, channel="1").bundle


@pytest.fixture(scope="module")
def unlearned(scene, noise_model, tmp_path_factory):
    """A stack and a model with another channel that has hardly learned anything."""
    stack = two_channels(scene, scene)
    out = tmp_path_factory.mktemp("unlearned") / "with"
    return stack, trained(stack, noise_model, out, "DAPI", steps=10)


@pytest.fixture(scope="module")
def helped(scene, noise_model, tmp_path_factory):
    stack = two_channels(scene, scene)
    folder = tmp_path_factory.mktemp("helped")
    return (
        stack,
        trained(stack, noise_model, folder / "alone"),
        trained(stack, noise_model, folder / "with", "DAPI"),
    )


@pytest.mark.long
def test_a_bright_channel_of_the_same_structure_helps_a_dim_one(helped, scene, noise_model):
    stack, alone, together = helped
    offset = noise_model.photon_transfer.offset_adu
    without = decibels_of_gfp(alone, stack, scene, offset)
    assert decibels_of_gfp(together, stack, scene, offset) > without + 2
    # Where it does not come, the model still works.
    missing = decibels_of_gfp(together, stack, scene, offset, with_other_channel=False)
    assert missing > without - 2
    assert (together.manifest.channel, together.manifest.other_channels) == ("GFP", ("DAPI",))
    assert together.manifest.figures["parity_max_relative_error"] < 1e-3


def judged(candidate, current, stack):
    noise_model = load_noise_model(candidate.noise_model_path)
    return judge(compare(candidate, current, [stack], lambda run: noise_model, channel="GFP"))


@pytest.mark.long
def test_retraining_compares_models_with_and_without_other_channels(helped):
    stack, alone, together = helped
    better, worse = judged(together, alone, stack), judged(alone, together, stack)
    assert better.promote
    assert better.figures["gain_adu2"] > 2 * better.figures["least_gain_adu2"]
    assert not worse.promote
    assert worse.reason.startswith("worse on")


@pytest.mark.long
def test_a_channel_of_another_structure_does_no_harm(scene, noise_model, tmp_path):
    stack = two_channels(structure(2), scene)
    offset = noise_model.photon_transfer.offset_adu
    alone = trained(stack, noise_model, tmp_path / "alone")
    together = trained(stack, noise_model, tmp_path / "with", "DAPI")
    without = decibels_of_gfp(alone, stack, scene, offset)
    assert decibels_of_gfp(together, stack, scene, offset) > without - 0.5


@pytest.mark.parametrize("algorithm", ["lattice"])
def test_the_other_channel_is_seen_whole_and_the_target_never(scene, noise_model, algorithm):
    stack = two_channels(scene, scene)
    other_channels = other_channels_of(stack, "GFP", ["DAPI"])
    recordings = load_recordings(
        [stack.channel(1)],
        context_frames=0,
        patch=48,
        memory_mib=64,
        side_inputs=[SideInputs(other_channels)],
    )
    options = dataclasses.replace(QUICK, algorithm=algorithm, steps=3, other_channels=("DAPI",))
    estimator, _ = fit(recordings, noise_model, options, started=0.0)
    edge = 2 * estimator.network.stride
    planes = torch.randn(1, 2, edge, edge, requires_grad=True)
    for y, x in (
        (edge // 2, edge // 2),
        (edge // 2 + 1, edge // 2),
        (edge // 2 + 1, edge // 2 + 1),
    ):
        mean = estimator.network(planes)[0, 0, y, x]
        (slope,) = torch.autograd.grad(mean, planes)
        assert slope[0, 0, y, x] == 0
        assert slope[0, 1, y, x] != 0


def test_the_other_channel_is_the_newest_frame_that_came_before(scene, noise_model):
    frames = np.arange(1, 1 + 6 * 2, dtype=np.uint16).reshape(6, 2, 1, 1) * np.ones(
        (1, 1, 40, 40), np.uint16
    )
    frames[:, :, ::2] += 100  # no frame is constant
    stack = dataclasses.replace(
        stack_from_array(frames, axes=("time", "channel")), channel_names=("DAPI", "GFP")
    )
    for own, name, lag in ((1, "DAPI", 0), (0, "GFP", 1)):
        (other,) = other_channels_of(stack, stack.channel_names[own], [name])
        for t in range(6):
            there = other.index(t)
            if t < lag:
                assert there is None
            else:
                assert other.stack.frame(there)[1, 0] == frames[t - lag, 1 - own, 1, 0]


def test_patches_hold_both_channels_at_one_place_and_time(scene):
    stack = two_channels(scene, scene)
    pixels = stack.channel(0)
    recordings = load_recordings(
        [stack.channel(1)],
        context_frames=1,
        patch=32,
        memory_mib=64,
        side_inputs=[SideInputs(other_channels_of(stack, "GFP", ["DAPI"]))],
    )
    patches = recordings.sampler.draw(8, np.random.default_rng(0))
    assert patches.shape == (8, 3, 32, 32)
    dapi = np.stack([pixels.frame(t) for t in range(FRAMES)])
    gfp = np.stack([stack.channel(1).frame(t) for t in range(FRAMES)])
    for patch in patches:
        windows = np.lib.stride_tricks.sliding_window_view(gfp, (32, 32), axis=(1, 2))
        (t, y, x) = (int(n[0]) for n in np.nonzero((windows[..., 0, :] == patch[0, 0]).all(-1)))
        np.testing.assert_array_equal(patch[0], gfp[t, y : y + 32, x : x + 32])
        np.testing.assert_array_equal(patch[2], dapi[t, y : y + 32, x : x + 32])


def test_other_channels_are_missing_now_and_then():
    patches = np.ones((400, 3, 16, 16), np.float32)
    turned = augmented(
        patches, np.random.default_rng(0), transpose=True, inputs=InputPlanes(0, other_channels=2)
    )
    assert (turned[:, 0] == 1).all()
    for place in (1, 2):
        missing = (turned[:, place] == 0).all(axis=(1, 2)).mean()
        assert 0.05 < missing < 0.3


# ------------------------------------------------------------------- offline, and refusals


def test_offline_gives_each_channel_its_other_channels(unlearned, tmp_path):
    stack, together = unlearned
    out = denoise_stack(stack, {"GFP": together}, tmp_path / "out.ome.zarr", provider="cpu")
    assert out["frames_denoised"] == FRAMES  # the other channel has no model
    found = open_stack(tmp_path / "out.ome.zarr")
    planes = np.stack([stack.frame(stack.index({"time": 4, "channel": c})) for c in (1, 0)])
    expected = np.empty((2, SIDE, SIDE), np.float32)
    with OnnxDenoiser(together, (SIDE, SIDE), provider="cpu") as denoiser:
        denoiser.denoise(planes, expected)
    place = found.index({"time": 4, "channel": 1, "z": 0})
    np.testing.assert_array_equal(found.frame(place), expected[0])


def test_a_recording_without_the_other_channel_is_refused(unlearned, tmp_path):
    stack, together = unlearned
    with pytest.raises(FrameMismatchError, match="also looks at DAPI"):
        denoise_stack(stack.channel(1), together, tmp_path / "out.ome.zarr", provider="cpu")
    with pytest.raises(FrameMismatchError, match="also looks at DAPI"):
        evaluate(stack.channel(1), together, static=True, provider="cpu")


def test_other_channels_that_cannot_be_are_refused(scene):
    stack = two_channels(scene, scene)
    with pytest.raises(TrainingDataError, match="has no channel 'Cy5', it has DAPI, GFP"):
        other_channels_of(stack, "GFP", ["Cy5"])
    with pytest.raises(TrainingDataError, match="another channel of its own"):
        other_channels_of(stack, "GFP", ["GFP"])
    with pytest.raises(TrainingDataError, match="name it with --channel"):
        other_channels_of(stack, None, ["DAPI"])
    once = stack_from_array(np.zeros((3, 2, 40, 40), np.uint16), axes=("z", "channel"))
    with pytest.raises(TrainingDataError, match="no earlier time point"):
        other_channels_of(once, "0", ["1"])


def test_all_channels_get_a_model_with_the_others_as_other_channels(scene):
    options = TrainingOptions(seconds=600, context_frames=2)
    planned = plan_channels(two_channels(scene, scene), options)
    assert {name: found.other_channels for name, found in planned.items()} == {
        "DAPI": ("GFP",),
        "GFP": ("DAPI",),
    }
    assert all((found.seconds, found.context_frames) == (300, 2) for found in planned.values())


def test_one_time_point_leaves_only_channels_that_came_before():
    stack = stack_from_array(np.zeros((5, 3, 40, 40), np.uint16), axes=("z", "channel"))
    planned = plan_channels(stack, TrainingOptions())
    assert [found.other_channels for found in planned.values()] == [(), ("0",), ("0", "1")]


@pytest.mark.parametrize("named", [{"algorithm": "refined"}, {"begun_with": "the model 0123"}])
def test_a_network_that_is_there_already_is_given_no_further_channels(scene, named):
    planned = plan_channels(two_channels(scene, scene), TrainingOptions(**named))
    assert [found.other_channels for found in planned.values()] == [(), ()]


def test_all_channels_of_one_are_refused(scene):
    stack = two_channels(scene, scene).channel(0)
    with pytest.raises(TrainingDataError, match="holds one channel; leave out --channel all"):
        plan_channels(stack, TrainingOptions())


@pytest.mark.parametrize(
    "name", ["..", "", "a/b", "a:b", "a?", "*", "CON", "nul.txt", "GFP.", " "]
)
def test_channels_that_no_folder_can_be_named_after_are_refused(scene, name):
    stack = dataclasses.replace(two_channels(scene, scene), channel_names=("GFP", name))
    with pytest.raises(TrainingDataError, match="no folder can be named after"):
        plan_channels(stack, TrainingOptions())


def test_channels_of_one_name_are_refused(scene):
    stack = dataclasses.replace(two_channels(scene, scene), channel_names=("GFP", "gfp"))
    with pytest.raises(TrainingDataError, match="two of the channels GFP, gfp have one name"):
        plan_channels(stack, TrainingOptions())
    odd = dataclasses.replace(stack, channel_names=("Cy5 (640 nm)", "2.5 µM"))
    assert len(plan_channels(odd, TrainingOptions())) == 2
    twice = dataclasses.replace(stack, channel_names=("GFP", "GFP"))
    assert [channel_name(named, "1") for named in (stack, twice)] == ["gfp", "1"]


def every_channel(stack, out, remarks=None, **changed):
    options = dataclasses.replace(QUICK, steps=24, **changed)

    def remark(text):
        (remarks if remarks is not None else []).append(text)

    def kill(progress):
        if kill.at and (out / "DAPI").is_dir() and progress.step >= kill.at:
            raise KeyboardInterrupt

    kill.at = 0 if options.resume else 10
    return train_channels(
        [stack],
        out,
        options,
        noise_model=None,
        channel="all",
        overwrite=False,
        on_progress=kill,
        on_remark=remark,
    )


@pytest.mark.long
def test_all_channels_resume_where_they_were_killed(scene, tmp_path):
    stack, out, remarks = two_channels(scene, scene), tmp_path / "models", []
    with pytest.raises(KeyboardInterrupt):
        every_channel(stack, out)
    finished = (out / "DAPI" / "manifest.json").read_bytes()
    with pytest.raises(OutputError, match="DAPI: already exists"):
        every_channel(stack, out)
    assert list(every_channel(stack, out, remarks, resume=True)) == ["GFP"]
    assert (out / "DAPI" / "manifest.json").read_bytes() == finished
    assert any("left as they are: DAPI" in remark for remark in remarks)
    with pytest.raises(TrainingError, match="every channel has its model"):
        every_channel(stack, out, resume=True)


def test_all_channels_are_refused_before_the_first_is_trained(scene, tmp_path, monkeypatch):
    (tmp_path / "GFP").mkdir()
    (tmp_path / "GFP" / "thesis.txt").touch()
    with pytest.raises(OutputError, match="GFP: already exists"):
        every_channel(two_channels(scene, scene), tmp_path)
    assert not (tmp_path / "DAPI").exists()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="takes no torchrun"):
        every_channel(two_channels(scene, scene), tmp_path)
