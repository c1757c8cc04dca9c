"""Whole training runs on small simulated recordings: quality, budgets, resuming, refusals."""

from __future__ import annotations

import dataclasses
import re
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.inference.bundle import open_bundle
from quietscope.inference.evaluation.evaluate import evaluate
from quietscope.storage.atomic_output import OutputError
from quietscope.storage.open_stack import open_stack
from quietscope.storage.stack import StackError, stack_from_array
from quietscope.training.checkpoint import (
    load_checkpoint,
    load_weights,
    save_checkpoint,
    working_file,
)
from quietscope.training.data.recordings import load_recordings
from quietscope.training.errors import TrainingDataError, TrainingError
from quietscope.training.options import LATTICE_PLANS, NetworkPlan, TrainingOptions
from quietscope.training.run import LossRow, Run
from quietscope.training.train import fit, train
from quietscope.training.validation import overfits

pytestmark = pytest.mark.usefixtures("one_thread")


OFFSET, GAIN, READ = 100.0, 2.0, 3.0
QUICK = TrainingOptions(preset="fast", steps=120, batch=8, patch=32)


def scene(frames: int, shape=(72, 90), speed: float = 1.0) -> np.ndarray:
    """Photoelectrons of a blob that moves over still stripes, (frames, Y, X)."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    stripes = 12 * (np.sin(x / 6.0 + y / 11.0) > 0.3)
    return np.stack(
        [
            4 + stripes + 60 * np.exp(-((y - 36) ** 2 + (x - 20 - speed * t) ** 2) / 60.0)
            for t in range(frames)
        ]
    )


def camera(photoelectrons: np.ndarray, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    electrons = rng.poisson(photoelectrons) + READ * rng.standard_normal(photoelectrons.shape)
    return np.clip(np.rint(OFFSET + GAIN * electrons), 0, 65535).astype(np.uint16)


def decibels(estimate: np.ndarray, truth: np.ndarray) -> float:
    return 10 * np.log10(np.ptp(truth) ** 2 / np.mean((estimate - truth) ** 2))


@pytest.fixture(scope="module")
def photoelectrons() -> np.ndarray:
    return scene(24)


@pytest.fixture(scope="module")
def recording(photoelectrons):
    return stack_from_array(camera(photoelectrons))


@pytest.fixture(scope="module")
def trained(recording, tmp_path_factory):
    out = tmp_path_factory.mktemp("with space") / "model"
    remarks = []
    options = dataclasses.replace(QUICK, steps=400, context_frames=1)
    result = train([recording], out, options, on_remark=remarks.append)
    return result, remarks


def run_graph(bundle, observations):
    session = onnxruntime.InferenceSession(
        str(bundle.model_path), providers=["CPUExecutionProvider"]
    )
    return session.run(["denoised", "uncertainty"], {"observations": observations})


def test_the_model_is_closer_to_the_truth_than_the_camera(trained, recording, photoelectrons):
    result, _ = trained
    truth = OFFSET + GAIN * photoelectrons[23]
    denoised, uncertainty = run_graph(result.bundle, recording.observations(23, 1)[None])
    raw = decibels(recording.frame(23).astype(float), truth)
    assert decibels(denoised[0, 0], truth) > raw + 6
    assert (uncertainty > 0).all()
    # Honest within what 400 steps on a few frames allow.
    assert 0.6 < np.std((denoised[0, 0] - truth) / uncertainty[0, 0]) < 1.6


def test_the_model_works_without_the_context_it_was_trained_with(
    trained, recording, photoelectrons
):
    result, _ = trained
    observations = recording.observations(23, 1)[None].copy()
    observations[:, 1] = 0
    truth = OFFSET + GAIN * photoelectrons[23]
    denoised, _ = run_graph(result.bundle, observations)
    raw = decibels(recording.frame(23).astype(float), truth)
    assert decibels(denoised[0, 0], truth) > raw + 5


@pytest.mark.parametrize("shape", [(1, 2, 33, 47), (3, 2, 64, 64), (1, 2, 5, 6), (1, 2, 72, 1)])
def test_the_graph_takes_any_size(trained, shape):
    result, _ = trained
    observations = camera(np.full(shape, 20.0))
    for output in run_graph(result.bundle, observations):
        assert output.shape == (shape[0], 1, *shape[2:])
        assert np.isfinite(output).all()


def test_the_bundle_is_sealed_and_complete(trained):
    result, remarks = trained
    bundle = open_bundle(result.bundle.path)
    assert set(bundle.manifest.sha256) >= {
        "model.onnx", "noise_model.npz", "checkpoint.pt", "losses.csv", "report.html",
    }  # fmt: skip
    assert bundle.manifest.noise_model == "bootstrapped"
    assert any("noise model" in remark for remark in remarks)
    assert bundle.manifest.context_frames == 1
    assert bundle.manifest.pixel_type == "uint16"
    assert bundle.manifest.training.stacks[0].frames == 24
    assert result.parity_max_relative_error < 1e-3
    onnx.checker.check_model(str(bundle.model_path), full_check=True)
    assert not working_file(result.bundle.path).exists()
    rows = (bundle.path / "losses.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "step,seconds,loss,validation_loss"
    assert int(rows[-1].split(",")[0]) == 400


def test_the_result_has_the_promised_keys(trained):
    result, _ = trained
    promised = {
        "algorithm", "preset", "steps", "seconds", "parameters",
        "parity_max_relative_error", "validation_loss",
    }  # fmt: skip
    assert promised <= set(result.result())


def fitted(recording, options):
    """Train without the export, which takes longer than these runs' steps."""
    recordings = load_recordings(
        [recording], context_frames=options.context_frames, patch=options.patch, memory_mib=64
    )
    noise_model = bootstrap_noise_model([recording])
    estimator, _ = fit(recordings, noise_model, options, started=time.monotonic())
    return estimator.eval()


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path / "checkpoint.pt", weights_only=True)["network"]


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


class Killed(Exception):
    pass


def test_a_killed_run_resumes_to_the_same_model_and_seeds_matter(recording, tmp_path):
    def kill(progress):
        if progress.step >= 80:
            raise Killed

    whole = fitted(recording, QUICK).network.state_dict()
    other = fitted(recording, dataclasses.replace(QUICK, seed=1)).network.state_dict()
    with pytest.raises(Killed):
        train([recording], tmp_path / "killed", QUICK, on_progress=kill)
    assert not (tmp_path / "killed").exists()
    assert working_file(tmp_path / "killed").is_file()
    train([recording], tmp_path / "killed", dataclasses.replace(QUICK, resume=True))
    assert same(whole, weights(tmp_path / "killed"))
    assert not same(whole, other)


def test_resuming_with_other_options_is_refused(recording, tmp_path):
    def kill(progress):
        raise Killed

    with pytest.raises(Killed):
        train([recording], tmp_path / "model", QUICK, on_progress=kill)
    changed = dataclasses.replace(QUICK, batch=4, resume=True)
    with pytest.raises(TrainingError, match="batch is 4, the unfinished run had 8"):
        train([recording], tmp_path / "model", changed)
    other = dataclasses.replace(recording, path="another")
    again = dataclasses.replace(QUICK, resume=True)
    with pytest.raises(TrainingError, match=r"recordings is another .* had array"):
        train([other], tmp_path / "model", again)
    with pytest.raises(TrainingError, match="channel is GFP, the unfinished run had None"):
        train([recording], tmp_path / "model", again, channel="GFP")
    found = bootstrap_noise_model([recording])
    noisier = dataclasses.replace(found, variance_adu2=2 * found.variance_adu2)
    with pytest.raises(TrainingError, match=r"noise_model is of .* ADU², the unfinished run"):
        train([recording], tmp_path / "model", again, noise_model=noisier)


def test_a_resumed_run_keeps_the_method_that_was_chosen(recording, tmp_path):
    found = []

    def kill(run, save):
        found.append((run.options.algorithm, run.step))
        if run.step == 2 or len(found) > 3:
            save()
            raise Killed

    # The recording's noise is white, for which lattice would be chosen now.
    begun = dataclasses.replace(QUICK, algorithm="n2v2")
    again = dataclasses.replace(QUICK, algorithm="auto", resume=True)
    for options in (begun, again):
        with pytest.raises(Killed):
            train([recording], tmp_path / "model", options, between_steps=kill)
    assert found == [("n2v2", 0), ("n2v2", 1), ("n2v2", 2), ("n2v2", 2)]


def test_a_resumed_run_keeps_the_units_that_it_began_with(recording, tmp_path):
    def kill(progress):
        raise Killed

    with pytest.raises(Killed):
        train([recording], tmp_path / "model", QUICK, on_progress=kill)
    path = working_file(tmp_path / "model")
    state = load_checkpoint(path)
    save_checkpoint(path, state | {"units": ((90.0, 11.0),)})
    recordings = load_recordings([recording], context_frames=0, patch=32, memory_mib=64)
    noise_model = bootstrap_noise_model([recording])
    again = dataclasses.replace(QUICK, resume=True)
    estimator, _ = fit(recordings, noise_model, again, started=time.monotonic(), checkpoint=path)
    assert (float(estimator.centre_adu), float(estimator.scale_adu)) == (90.0, 11.0)


def test_a_run_whose_network_was_of_another_size_is_not_resumed(recording, tmp_path, monkeypatch):
    """A later version may let a preset stand for another plan."""

    def kill(progress):
        raise Killed

    with pytest.raises(Killed):
        train([recording], tmp_path / "model", QUICK, on_progress=kill)
    monkeypatch.setitem(LATTICE_PLANS, QUICK.preset, NetworkPlan(16, 1, 1, growth=4))
    again = dataclasses.replace(QUICK, resume=True)
    with pytest.raises(TrainingError, match=r"left by another version .* without --resume"):
        train([recording], tmp_path / "model", again)


def test_a_run_of_few_steps_is_not_taken_for_overfitted():
    def run(steps_apart):
        scores = [1.0, 0.5, 0.9, 0.9, 0.9, 0.9]
        rows = [LossRow(i * steps_apart, 0.0, 1.0, score) for i, score in enumerate(scores)]
        return Run(QUICK, None, None, None, None, None, losses=rows)

    assert not overfits(run(1))
    assert overfits(run(20))


def test_a_failed_write_leaves_the_last_good_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "model.unfinished.pt"
    save_checkpoint(path, {"step": 1})

    def full(_state, staging):
        Path(staging).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match="last good checkpoint is intact"):
        save_checkpoint(path, {"step": 2})
    assert load_checkpoint(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_damaged_checkpoint_is_named(tmp_path):
    path = tmp_path / "model.unfinished.pt"
    path.write_bytes(b"\x80\x04nonsense")
    with pytest.raises(TrainingError, match="cannot be read"):
        load_checkpoint(path)
    torch.save([1], path)
    with pytest.raises(TrainingError, match=r"of another kind.*without --resume"):
        load_checkpoint(path)


def test_weights_of_another_kind_are_named(tmp_path):
    """A bundle's sums are right, and what it holds is not what quietscope writes."""
    path = tmp_path / "checkpoint.pt"
    for held in ({"options": {}}, {"options": {}, "network": {"weight": 1.0}}):
        torch.save(held, path)
        with pytest.raises(TrainingError, match=r"holds no network.*name another bundle"):
            load_weights(path)


LATE = re.compile(r"the run will take about (\d+) s")


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("algorithm", ["lattice", "pn2v"])
def test_a_budget_of_time_is_kept_or_the_excess_is_said_beforehand(recording, tmp_path, algorithm):
    """The whole of it: a noise model to be estimated, steps, calibration, export, checks."""
    remarks = []
    options = dataclasses.replace(QUICK, steps=None, seconds=30.0, algorithm=algorithm)
    began = time.monotonic()
    train([recording], tmp_path / "model", options, on_remark=remarks.append)
    took = time.monotonic() - began
    warned = [float(found[1]) for said in remarks if (found := LATE.search(said))]
    # Another program may take the processor at any time: twice what was said is too much.
    assert took < 2 * max([30.0, *warned])
    rows = (tmp_path / "model" / "losses.csv").read_text(encoding="utf-8").splitlines()
    assert float(rows[-1].split(",")[1]) < took


def test_a_budget_that_is_too_short_is_said_before_the_first_step(recording, tmp_path):
    said = []
    options = dataclasses.replace(QUICK, steps=None, seconds=2.0)
    recordings = load_recordings([recording], context_frames=0, patch=32, memory_mib=64)
    noise_model = bootstrap_noise_model([recording])
    _, run = fit(recordings, noise_model, options, started=time.monotonic(), on_remark=said.append)
    assert any("2 s are too short for this machine" in line for line in said)
    assert run.step > 0


@pytest.mark.long
@pytest.mark.parametrize("algorithm", ["n2v", "n2v2", "structn2v", "pn2v"])
def test_every_masked_method_denoises(recording, photoelectrons, tmp_path, algorithm):
    options = dataclasses.replace(QUICK, algorithm=algorithm, steps=350, samples=16)
    truth = OFFSET + GAIN * photoelectrons[23]
    observations = recording.observations(23, 0)[None]
    if algorithm in ("n2v", "pn2v"):
        bundle = train([recording], tmp_path / "model", options).bundle
        denoised, uncertainty = run_graph(bundle, observations)
    else:  # the network of both is exported in `data/test_noise_correlation.py`
        estimator = fitted(recording, options)
        with torch.no_grad():
            outputs = estimator(torch.from_numpy(observations.astype(np.float32)))
        denoised, uncertainty = (output.numpy() for output in outputs)
    assert decibels(denoised[0, 0], truth) > decibels(recording.frame(23).astype(float), truth) + 3
    assert (uncertainty >= 0).all()


def refused(stacks, tmp_path, match, error=TrainingDataError):
    with pytest.raises(error, match=match) as caught:
        train(stacks, tmp_path / "model", QUICK)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_constant_images_are_refused(tmp_path):
    refused(
        [stack_from_array(np.full((5, 64, 64), 100, np.uint16))], tmp_path, "every pixel is 100"
    )


def test_saturated_stacks_are_refused(tmp_path, recording):
    pixels = recording.frames(range(6))
    pixels[:, 20:] = 65535
    refused([stack_from_array(pixels)], tmp_path, "saturated at 65535")


def test_frames_smaller_than_a_patch_are_refused(tmp_path):
    pixels = camera(scene(5, shape=(20, 60)))
    refused([stack_from_array(pixels)], tmp_path, "20×60 pixels, expected at least 32×32")


def test_nan_is_refused(tmp_path):
    pixels = camera(scene(5)).astype(np.float32)
    pixels[2, 3, 4] = np.nan
    refused([stack_from_array(pixels)], tmp_path, "NaN", StackError)


def test_mixed_types_and_shapes_are_refused(tmp_path, recording):
    narrow = stack_from_array(np.zeros((5, 72, 90), np.uint8))
    small = stack_from_array(camera(scene(5, shape=(64, 64))))
    refused([recording, narrow], tmp_path, "pixels are uint8")
    refused([recording, small], tmp_path, "frames are 64×64")


def test_an_unnamed_channel_is_refused(tmp_path):
    pixels = camera(scene(8)).reshape(4, 2, 72, 90)
    refused([stack_from_array(pixels, axes=("time", "channel"))], tmp_path, "--channel")


def test_a_noise_model_for_other_intensities_is_refused(tmp_path, trained):
    from quietscope.calibration.noise_files import load_noise_model

    noise_model = load_noise_model(trained[0].bundle.noise_model_path)
    bright = stack_from_array(camera(scene(5) + 5000))
    with pytest.raises(TrainingDataError, match="outside"):
        train([bright], tmp_path / "model", QUICK, noise_model=noise_model)


def test_an_existing_bundle_is_not_replaced(trained, recording):
    with pytest.raises(OutputError, match="already exists"):
        train([recording], trained[0].bundle.path, QUICK)


@pytest.mark.parametrize(
    ("choices", "match"),
    [
        ({"steps": 5, "seconds": 60.0}, "one budget"),
        ({"context_frames": -1}, "context_frames is -1"),
        ({"context_frames": 99}, "at most"),
        ({"patch": 50}, "multiple of 16"),
        ({"algorithm": "bm3d"}, "lattice"),
        ({"batch": 0}, "batch is 0"),
        ({"samples": 0}, "samples is 0, expected at least 2"),
        ({"samples": 10**9}, "samples is 1000000000, expected at most"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"seconds": float("inf")}, "seconds is inf, expected at most"),
        ({"seed": 2**63}, "seed is"),
    ],
)
def test_options_that_cannot_be_trained_are_refused(choices, match):
    with pytest.raises(TrainingError, match=match):
        TrainingOptions(**choices)


def test_patches_are_drawn_more_often_where_there_is_structure():
    pixels = np.full((6, 256, 256), 100, np.uint16) + np.arange(6, dtype=np.uint16)[:, None, None]
    rng = np.random.default_rng(0)
    pixels[:, 32:96, 32:96] += (100 * (rng.random((64, 64)) > 0.9)).astype(np.uint16)
    recordings = load_recordings(
        [stack_from_array(pixels)], context_frames=0, patch=32, memory_mib=64
    )
    drawn = recordings.sampler.draw(400, rng)
    share = np.mean(drawn.max(axis=(1, 2, 3)) > 150)
    assert share > 0.4  # the structure covers 6 % of the frame


def test_a_single_frame_is_enough_to_start():
    stack = stack_from_array(camera(scene(1)))
    fitted(stack, dataclasses.replace(QUICK, steps=60))


@pytest.mark.realdata
@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_real_photon_counts_are_denoised(real_data, tmp_path):
    stack = open_stack(sorted((real_data / "nandb_fkbp_confocal").glob("*.tif"))[0])
    options = TrainingOptions(preset="fast", steps=200, batch=8)
    result = train([stack], tmp_path / "model", options)
    score = evaluate(stack, result.bundle, static=True, frames=(25,), provider="cpu").result()
    assert score["psnr_db"] > score["psnr_raw_db"] + 4
    assert 0.5 < score["uncertainty_z_std"] < 1.7


def test_a_budget_that_is_used_up_before_the_first_step_is_an_error(recording, tmp_path):
    options = dataclasses.replace(QUICK, steps=None, seconds=1.0)
    recordings = load_recordings([recording], context_frames=0, patch=32, memory_mib=64)
    noise_model = bootstrap_noise_model([recording])
    with pytest.raises(TrainingError, match="before the first step"):
        fit(recordings, noise_model, options, started=time.monotonic() - 5)
