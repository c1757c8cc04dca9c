"""The general model: what ships is what was written, and it does the same for every camera."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from filelock import FileLock
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from quietscope.calibration.errors import CameraMismatchError
from quietscope.calibration.fingerprint import CameraFingerprint
from quietscope.calibration.gaussian_mixture import GaussianMixtureNoiseModel
from quietscope.calibration.noise_files import save_noise_model
from quietscope.calibration.pixel_maps import PixelMaps
from quietscope.calibration.straight_line import Interval
from quietscope.inference.bundle import Bundle, open_bundle
from quietscope.inference.commands import denoise, evaluate
from quietscope.inference.errors import BundleError, InferenceError
from quietscope.inference.general import for_camera, shipped
from quietscope.inference.general.camera_constants import MOST_READ_VARIANCE_E2, CameraConstants
from quietscope.inference.general.choice import Wanted, chosen_models
from quietscope.inference.general.for_camera import SENTENCE, general_bundle, nominal_camera
from quietscope.inference.library import Library
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.inference.trust import NoiseVariance, TrustFigures
from quietscope.storage.open_stack import open_stack

Image = NDArray[Any]
SHAPE = (96, 120)


def camera(gain: float, offset: float, read_e: float, **changed: Any) -> GaussianMixtureNoiseModel:
    """Return the noise model of a camera by its three numbers."""
    nominal = nominal_camera()
    law = replace(
        nominal.photon_transfer,
        gain=Interval(gain, gain, gain),
        offset=Interval(offset, offset, offset),
        read_noise=Interval(read_e, read_e, read_e),
        intercept_adu2=(gain * read_e) ** 2 - gain * offset,
        dark_variance_adu2=(gain * read_e) ** 2,
    )
    signal = np.array([offset, 65535.0])
    return replace(
        nominal,
        photon_transfer=law,
        signal_adu=signal,
        variance_adu2=law.variance(signal),
        **changed,
    )


def scene() -> Image:
    """Return a scene of discs, a filament and a haze, (Y, X) electrons, and nothing of a pool."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    image = 2 + 3 * np.exp(-((x - 60) ** 2 + (y - 40) ** 2) / 3000)
    for row, column, radius, light in ((30, 30, 12, 20), (60, 80, 18, 12), (70, 25, 8, 40)):
        image += light / (1 + np.exp((np.hypot(y - row, x - column) - radius) / 0.8))
    image += 25 * np.exp(-((y - 20 - 8 * np.sin(x / 15)) ** 2) / 4)
    return image


@pytest.fixture(scope="module")
def kept_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("general models")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(for_camera, "_cache", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def denoised(kept_in: Path) -> Callable[..., tuple[Image, Image]]:
    def run(model: GaussianMixtureNoiseModel, seen: Image, region: Any = None) -> Any:
        """Return estimate and deviation, ADU, of (1 + T, Y, X)."""
        context = 0 if len(seen) == 1 else 4
        frames = np.zeros((1 + context, *seen.shape[1:]), seen.dtype)
        frames[: len(seen)] = seen
        bundle = general_bundle(model, seen.dtype.name, context_frames=context, kept_in=kept_in)
        out = np.empty((2, *seen.shape[1:]), np.float32)
        with OnnxDenoiser(
            bundle, seen.shape[1:], provider="cpu", threads=1, region=region
        ) as denoiser:
            denoiser.denoise(frames, out)
        return out[0].astype(float), out[1].astype(float)

    return run


def psnr(estimate: Image, truth: Image) -> float:
    return float(10 * np.log10(np.ptp(truth) ** 2 / np.mean((estimate - truth) ** 2)))


# ---------------------------------------------------------------------- what ships


def test_what_ships_is_whole_small_and_says_how_it_came_to_be() -> None:
    manifest = shipped.read_shipped()
    for context in shipped.CONTEXTS:
        shipped.shipped_graph(context, with_maps=True)
    files = {file.name for file in shipped.FOLDER.iterdir()}
    assert files == {shipped.MANIFEST, *manifest.sha256}
    assert sum(file.stat().st_size for file in shipped.FOLDER.iterdir()) < 2e6
    assert "generated" in manifest.recipe
    assert manifest.steps > 0
    assert manifest.parity_max_relative_error is not None
    assert manifest.parity_max_relative_error < 1e-3


@pytest.mark.parametrize("damage", ["flipped", "cut", "swapped", "gone", "manifest"])
def test_a_damaged_or_swapped_file_is_refused(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "shipped"
    shutil.copytree(shipped.FOLDER, folder)
    weights, manifest = folder / shipped.WEIGHTS, folder / shipped.MANIFEST
    content = bytearray(weights.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
        weights.write_bytes(content)
    elif damage == "cut":
        weights.write_bytes(content[:1000])
    elif damage == "swapped":
        shutil.copy(folder / shipped.GRAPH.format(context=0, maps=""), weights)
    elif damage == "gone":
        weights.unlink()
    else:
        manifest.write_text("{}", encoding="utf-8")
    with pytest.raises(BundleError, match="install quietscope anew") as refused:
        general_bundle(nominal_camera(), "uint16", shipped=folder, kept_in=tmp_path)
    assert "\n" not in str(refused.value)


def test_a_bundle_is_made_once_and_made_anew_when_it_is_damaged(kept_in: Path) -> None:
    made = general_bundle(camera(3, 90, 1), "uint16", kept_in=kept_in)
    again = general_bundle(camera(3, 90, 1), "uint16", kept_in=kept_in)
    assert (again.path, again.manifest.created) == (made.path, made.manifest.created)
    made.model_path.write_bytes(b"nothing")
    repaired = general_bundle(camera(3, 90, 1), "uint16", kept_in=kept_in)
    assert repaired.model_sha256 == made.model_sha256
    assert general_bundle(camera(3, 91, 1), "uint16", kept_in=kept_in).path != made.path


def test_a_bundle_without_its_manifest_is_made_anew(kept_in: Path) -> None:
    made = general_bundle(camera(3, 92, 1), "uint16", kept_in=kept_in)
    (made.path / "manifest.json").unlink()
    assert general_bundle(camera(3, 92, 1), "uint16", kept_in=kept_in).path == made.path


def test_a_bundle_that_is_kept_serves_while_nothing_can_be_written(
    kept_in: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EROFS, "Read-only file system")

    made = general_bundle(camera(3, 93, 1), "uint16", kept_in=kept_in)
    monkeypatch.setattr(FileLock, "acquire", refused)
    assert general_bundle(camera(3, 93, 1), "uint16", kept_in=kept_in).path == made.path
    with pytest.raises(InferenceError, match=r"cannot be kept there .*Read-only.*make room, or"):
        general_bundle(camera(3, 94, 1), "uint16", kept_in=tmp_path)


def test_pixels_of_another_type_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InferenceError, match=r"uint32.*uint8, uint16 or float32"):
        general_bundle(nominal_camera(), "uint32", kept_in=tmp_path)


@pytest.mark.parametrize("fresh", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_graph_gives_what_torch_gives(fresh: bool) -> None:
    torch = pytest.importorskip("torch")
    import onnxruntime

    from quietscope.training.general.export import general_graph
    from quietscope.training.model.general import GeneralEstimator, GeneralNetwork

    network = GeneralNetwork()
    network.load_state_dict(
        {name: torch.from_numpy(value) for name, value in shipped.shipped_weights().items()}
    )
    rng = np.random.default_rng(0)
    seen = (100 + 2 * rng.poisson(scene(), (1, 5, *SHAPE)))[..., :75, :91].astype(np.uint16)
    seen[:, 3:] = 0
    maps = rng.normal([[[1]], [[0]], [[0]]], 0.1, (1, 3, 75, 91)).astype(np.float32)
    inputs = [seen, np.array([100, 2, 1.5], np.float32), maps]
    with torch.no_grad():
        expected = GeneralEstimator(network)(*map(torch.from_numpy, inputs))
    feeds = dict(zip(("observations", "camera", "pixel_maps"), inputs, strict=True))
    graph = (
        general_graph(network, 4, with_maps=True)
        if fresh
        else shipped.shipped_graph(4, with_maps=True)
    )
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for ours, theirs in zip(session.run(None, feeds), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3 * float(theirs.abs().max()))


# ---------------------------------------------------------------------- every camera alike


def test_two_cameras_give_the_same_picture_in_electrons(denoised: Any) -> None:
    electrons = np.random.default_rng(0).poisson(scene(), (1, *SHAPE)) + 0.0
    one, other = camera(2, 100, 1.5), camera(0.25, 480, 1.5)
    pictures = [
        (denoised(model, (offset + gain * electrons).astype(np.float32)), gain, offset)
        for model, gain, offset in ((one, 2, 100), (other, 0.25, 480))
    ]
    (first, first_noise), (second, second_noise) = (
        ((mean - offset) / gain, deviation / gain) for (mean, deviation), gain, offset in pictures
    )
    np.testing.assert_allclose(first, second, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(first_noise, second_noise, rtol=2e-3)


def test_the_constants_keep_the_variance_of_the_noise_model() -> None:
    law = nominal_camera()
    told = CameraConstants.of(law)
    assert (told.offset_adu, told.gain_adu_per_e) == (100, 1)
    unknown = replace(
        law,
        photon_transfer=replace(law.photon_transfer, offset=None),
        signal_adu=np.array([400.0, 65535]),
        variance_adu2=law.variance([400.0, 65535]),
    )
    for model in (law, unknown, camera(0.01, 100, 100)):
        constants = CameraConstants.of(model)
        assert 0 <= constants.read_variance_e2 <= MOST_READ_VARIANCE_E2
        signal = np.array([450.0, 1000, 5000])
        variance = constants.gain_adu_per_e * (signal - constants.offset_adu)
        variance += constants.dark_variance_adu2()
        np.testing.assert_allclose(variance, model.variance(signal), rtol=1e-3)


def test_a_camera_that_saw_no_light_gets_constants_that_can_be_computed_with() -> None:
    constants = CameraConstants.of(camera(1e-9, 100, 1e10))
    assert np.isfinite(constants.as_input()).all()
    dark = constants.gain_adu_per_e * (100 - constants.offset_adu) + constants.dark_variance_adu2()
    assert dark == pytest.approx(100, rel=1e-3)


# ---------------------------------------------------------------------- what it does


def test_it_is_better_than_a_blur_and_honest(denoised: Any) -> None:
    rng = np.random.default_rng(1)
    truth = 100 + 2 * scene()
    seen = np.rint(100 + 2 * rng.poisson(scene()) + 3 * rng.standard_normal(SHAPE))
    mean, deviation = denoised(camera(2, 100, 1.5), seen[None].astype(np.uint16))
    blurred = max(psnr(gaussian_filter(seen, s), truth) for s in (0.7, 1, 1.3, 1.7, 2.2))
    assert psnr(mean, truth) > blurred + 1
    assert np.sqrt(np.mean((mean - truth) ** 2 / deviation**2)) == pytest.approx(1, abs=0.35)


def test_preceding_frames_help_where_the_scene_rests_and_leave_no_ghost(denoised: Any) -> None:
    rng = np.random.default_rng(2)
    model, truth = camera(1, 100, 1), scene()
    moved = truth.copy()
    moved[10:40, 90:110] += 30.0  # was there before, and is no longer
    seen = 100 + rng.poisson([truth, moved, moved, moved, moved]).astype(np.uint16)
    seen = seen.astype(np.uint16)
    alone, _ = denoised(model, seen[:1])
    with_two, _ = denoised(model, seen[:3])
    with_four, _ = denoised(model, seen)
    resting = np.s_[:, :85]
    for fewer, more in ((alone, with_two), (with_two, with_four)):
        assert psnr(more[resting], 100 + truth[resting]) > psnr(
            fewer[resting], 100 + truth[resting]
        )
    gone = np.s_[12:38, 92:108]
    assert abs(float((with_four - 100 - truth)[gone].mean())) < 0.7


@pytest.mark.parametrize("light", [1.0, 30.0])
def test_an_empty_field_stays_empty(denoised: Any, light: float) -> None:
    rng = np.random.default_rng(3)
    seen = (100 + rng.poisson(light, (1, *SHAPE))).astype(np.uint16)
    model = camera(1, 100, 0.3)
    mean, deviation = denoised(model, seen)
    assert mean.std() < 0.25 * light**0.5
    assert abs(float(mean.mean()) - 100 - light) < 0.03 * light + 0.02
    figures = TrustFigures.measure(
        seen[0], mean.astype(np.float32), deviation.astype(np.float32), NoiseVariance(model)
    )
    assert abs(figures.residual_correlation) < 0.05


def test_a_noisy_pixel_that_is_known_leaves_no_spot(denoised: Any) -> None:
    rng = np.random.default_rng(4)
    variance = np.full(SHAPE, 1.0)
    variance[30, 40] = 900.0
    none = np.zeros(SHAPE, bool)
    offsets = np.full(SHAPE, 100.0)
    offsets[60, 70] = 160.0
    maps = PixelMaps(offsets, variance, None, none, none)
    fingerprint = CameraFingerprint(roi=(0, 0, SHAPE[1], SHAPE[0]))
    model = camera(1, 100, 1, maps=maps, fingerprint=fingerprint)
    seen = offsets + rng.poisson(np.full(SHAPE, 20.0)) + rng.standard_normal(SHAPE)
    seen[30, 40] = 100 + 20 + 90  # three of its standard deviations
    region = (0, 0, SHAPE[1], SHAPE[0])
    mean, _ = denoised(model, np.rint(seen)[None].astype(np.uint16), region)
    blind, _ = denoised(replace(model, maps=None), np.rint(seen)[None].astype(np.uint16))
    for place in ((30, 40), (60, 70)):
        assert abs(mean[place] - 120) < 6
        assert abs(blind[place] - 120) > 15


def test_a_noisy_pixel_of_a_noisy_camera_is_as_noisy_as_its_map_says(denoised: Any) -> None:
    """Noise without light that the network was not trained on is light to it: in the law alone."""
    rng = np.random.default_rng(6)
    read_e = 20.0
    as_light = read_e**2 - MOST_READ_VARIANCE_E2
    variance = read_e**2 * np.exp(rng.normal(0.2, 0.1, SHAPE))
    variance[30, 40] = 150.0**2
    none = np.zeros(SHAPE, bool)
    region = (0, 0, SHAPE[1], SHAPE[0])
    fingerprint = CameraFingerprint(roi=region)

    def model(offset: float, read_variance: float, own: Image) -> GaussianMixtureNoiseModel:
        maps = PixelMaps(np.full(SHAPE, offset), own, None, none, none)
        return camera(1, offset, read_variance**0.5, maps=maps, fingerprint=fingerprint)

    light = 200 + 20 * scene()
    seen = 1000 + rng.poisson(light) + variance**0.5 * rng.standard_normal(SHAPE)
    seen[30, 40] = 1000 + light[30, 40] + 3 * 150
    seen = np.rint(seen).clip(0)[None].astype(np.uint16)
    noisy = denoised(model(1000, read_e**2, variance), seen, region)
    lit = denoised(
        model(1000 - as_light, MOST_READ_VARIANCE_E2, variance - as_light), seen, region
    )
    for one, other in zip(noisy, lit, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3)
    assert abs(noisy[0][30, 40] - 1000 - light[30, 40]) < 60


# ---------------------------------------------------------------------- which model serves


def write_recording(path: Path, frames: int = 3) -> Path:
    rng = np.random.default_rng(5)
    seen = np.rint(100 + 2 * rng.poisson(scene(), (frames, *SHAPE)) + rng.normal(0, 2, SHAPE))
    tifffile.imwrite(
        path, seen.astype(np.uint16), photometric="minisblack", metadata={"axes": "TYX"}
    )
    return path


def test_denoise_takes_the_general_model_where_there_is_no_other(
    tmp_path: Path, own_cache: Path
) -> None:
    stack = write_recording(tmp_path / "cells.tif")
    outcome = denoise(str(stack), tmp_path / "out.ome.zarr", provider="cpu")
    assert outcome.result["frames_denoised"] == 3
    assert outcome.result["general_model"] == SENTENCE
    assert any(SENTENCE in line and "the recording itself" in line for line in outcome.summary)
    attributes = open_stack(tmp_path / "out.ome.zarr").attributes["quietscope"]
    assert {model["algorithm"] for model in attributes["models"].values()} == {"general"}


def test_the_calibration_that_is_given_is_the_one_that_is_taken(
    tmp_path: Path, own_cache: Path
) -> None:
    stack = write_recording(tmp_path / "cells.tif", frames=9)
    save_noise_model(camera(2, 100, 1), tmp_path / "camera.npz")
    outcome = denoise(
        str(stack),
        tmp_path / "out.ome.zarr",
        model=["general"],
        noise_model=tmp_path / "camera.npz",
        provider="cpu",
    )
    assert any("camera.npz" in line for line in outcome.summary)
    (made,) = own_cache.glob("*/manifest.json")
    assert json.loads(made.read_text(encoding="utf-8"))["figures"]["gain_adu_per_e"] == 2
    scored = evaluate(
        str(stack),
        Path("general"),
        static=True,
        noise_model=tmp_path / "camera.npz",
        provider="cpu",
    )
    assert SENTENCE in scored.summary[0]
    assert scored.result["psnr_db"] > scored.result["psnr_raw_db"] + 5


def test_a_calibration_that_nothing_uses_is_refused(
    tmp_path: Path, make_bundle: Callable[..., Path]
) -> None:
    save_noise_model(nominal_camera(), tmp_path / "camera.npz")
    with pytest.raises(InferenceError, match="brings its own; leave it out"):
        chosen_models(
            [str(make_bundle())],
            wanted(near=[tmp_path], noise_model=tmp_path / "camera.npz"),
        )


def wanted(**given: Any) -> Wanted:
    plain: dict[str, Any] = {
        "camera": CameraFingerprint(camera="Cam A"),
        "channels": None,
        "pixel_type": "uint16",
        "near": [],
    }
    return Wanted(**plain | given)


def test_live_without_any_calibration_is_refused_and_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InferenceError, match=r"no --model was given.*--noise-model"):
        chosen_models(None, wanted(near=[tmp_path]))
    with pytest.raises(InferenceError, match=r"no calibration of this camera.*quietscope calib"):
        chosen_models(["general"], wanted(near=[tmp_path]))


def test_a_calibration_in_the_library_serves_the_camera_that_it_is_of(
    tmp_path: Path, own_cache: Path
) -> None:
    (tmp_path / "current.json").write_text("{}", encoding="utf-8")
    of_this = camera(2, 100, 1, fingerprint=CameraFingerprint(camera="Cam A"))
    save_noise_model(of_this, tmp_path / "a.npz")
    found, said = chosen_models(None, wanted(near=[tmp_path]))
    assert open_bundle(found).manifest.figures["gain_adu_per_e"] == 2
    assert SENTENCE in said[0]
    assert "a.npz" in said[0]
    with pytest.raises(InferenceError, match=r"no --model was given|no model is in use"):
        chosen_models(None, wanted(near=[tmp_path], camera=CameraFingerprint(camera="Cam B")))


def test_channels_without_a_model_of_their_own_get_the_general_one(
    tmp_path: Path, own_cache: Path, make_bundle: Callable[..., Path]
) -> None:
    library = tmp_path / "library"
    (library / "models").mkdir(parents=True)
    shutil.copytree(make_bundle(), library / "models" / "gfp")
    manifest = library / "models" / "gfp" / "manifest.json"
    said = json.loads(manifest.read_text(encoding="utf-8")) | {"channel": "GFP"}
    manifest.write_text(json.dumps(said), encoding="utf-8")
    Library(library).promote(library / "models" / "gfp", "better")
    save_noise_model(
        camera(2, 100, 1, fingerprint=CameraFingerprint(camera="Cam A")), library / "a.npz"
    )
    found, said = chosen_models(None, wanted(channels=["GFP", "DAPI"], library=library))
    assert found["GFP"] == library / "models" / "gfp"
    general: Bundle = open_bundle(found["*"])
    assert general.manifest.algorithm == "general"
    assert "other channels" in said[1]
    # A calibration that was given and does not fit is no reason to go on without it, silently.
    save_noise_model(
        camera(2, 100, 1, fingerprint=CameraFingerprint(camera="Cam B")), tmp_path / "b.npz"
    )
    with pytest.raises(CameraMismatchError, match=r"b\.npz"):
        chosen_models(
            None,
            wanted(channels=["GFP", "DAPI"], library=library, noise_model=tmp_path / "b.npz"),
        )
