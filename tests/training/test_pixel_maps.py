"""A camera whose pixels differ: hot ones vanish from the estimate, and are known to be unsure."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import onnxruntime
import pytest
import torch

from quietscope.benchmarks.box_model import write_box_model
from quietscope.calibration.fingerprint import CameraFingerprint
from quietscope.calibration.fit_camera import fit_camera
from quietscope.calibration.pixel_maps import part_of
from quietscope.inference.bundle import open_bundle
from quietscope.inference.errors import FrameMismatchError
from quietscope.inference.library import Library
from quietscope.inference.offline.denoise_stack import denoise_stack
from quietscope.inference.runtime.camera_pixels import CameraPixels
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.inference.runtime.tiling import TiledDenoiser
from quietscope.storage.ome_zarr_writer import OmeZarrWriter
from quietscope.storage.open_stack import open_stack
from quietscope.storage.stack import stack_from_array
from quietscope.training.model.noise_likelihood import TabulatedNoise
from quietscope.training.options import TrainingOptions
from quietscope.training.retraining.retrain import _options, retrain_once
from quietscope.training.train import train

SIDE = 128
REGION = (200, 120, SIDE, SIDE)
QUICK = TrainingOptions(preset="fast", steps=250, batch=8, patch=48)


@dataclasses.dataclass(frozen=True, eq=False)
class Sensor:
    """An sCMOS camera: each pixel with its own offset, read noise and gain; some are hot."""

    offset_adu: np.ndarray
    read_adu: np.ndarray
    gain_adu_per_e: np.ndarray
    hot: np.ndarray

    @classmethod
    def random(cls, shape=(SIDE, SIDE), hot_share=0.01) -> Sensor:
        rng = np.random.default_rng(3)
        hot = rng.random(shape) < hot_share
        offset = 100 + rng.normal(0, 1.5, shape) + hot * rng.uniform(10, 60, shape)
        read = 2.5 * np.exp(rng.normal(0, 0.1, shape))
        read[hot] = rng.uniform(20, 60, int(hot.sum()))
        return cls(offset, read, np.full(shape, 2.0), hot)

    def expose(self, photoelectrons, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        electrons = rng.poisson(photoelectrons)
        read = self.read_adu * rng.standard_normal(electrons.shape)
        observed = self.offset_adu + self.gain_adu_per_e * electrons + read
        return np.clip(np.rint(observed), 0, 65535).astype(np.uint16)

    def calibrated(self, roi=REGION):
        flat = np.ones((60, *self.hot.shape))
        levels = [
            stack_from_array(self.expose(level * flat, seed), path=f"level {level}")
            for seed, level in enumerate((5, 20, 80, 300))
        ]
        dark = stack_from_array(self.expose(0 * flat, 9), path="dark")
        fingerprint = CameraFingerprint(camera="sCMOS", roi=roi)
        return fit_camera(levels, dark=dark, fingerprint=fingerprint).noise_model


def scenes(frames: int, shape=(SIDE, SIDE)) -> np.ndarray:
    """Photoelectrons of blobs that drift, (frames, Y, X)."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[: shape[0], : shape[1]]
    out = np.full((frames, *shape), 6.0)
    for _ in range(12):
        (cy, cx), (vy, vx) = rng.uniform(0, SIDE, 2), rng.normal(0, 0.3, 2)
        size, height = rng.uniform(2, 6), rng.uniform(20, 80)
        for t in range(frames):
            squared = (y - cy - vy * t) ** 2 + (x - cx - vx * t) ** 2
            out[t] += height * np.exp(-squared / (2 * size**2))
    return out


def denoised(denoiser, observations) -> tuple[np.ndarray, np.ndarray]:
    out = np.empty((len(observations), 2, *denoiser.frame_shape), np.float32)
    for frame, result in zip(observations, out, strict=True):
        denoiser.denoise(frame[np.newaxis], result)
    return out[:, 0], out[:, 1]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def sensor() -> Sensor:
    return Sensor.random()


@pytest.fixture(scope="module")
def noise_model(sensor):
    return sensor.calibrated()


@pytest.fixture(scope="module")
def recording(sensor):
    return sensor.expose(scenes(30), seed=77)


def trained(noise_model, recording, folder, steps, *, known):
    """A model that knows every pixel, or none."""
    return train(
        [stack_from_array(recording, path="recording")],
        folder / str(known),
        dataclasses.replace(QUICK, pixel_maps=known, steps=steps),
        noise_model=noise_model,
        accept=True,
    ).bundle


@pytest.fixture(scope="module")
def bundles(noise_model, recording, tmp_path_factory):
    """One that knows every pixel, and has hardly learned anything; and one without maps."""
    folder = tmp_path_factory.mktemp("models")
    return {
        True: trained(noise_model, recording, folder, 10, known=True),
        False: open_bundle(write_box_model(folder / "box")),
    }


@pytest.mark.long
def test_hot_pixels_vanish_and_are_known_to_be_unsure(sensor, noise_model, recording, tmp_path):
    bundles = {
        known: trained(noise_model, recording, tmp_path, QUICK.steps, known=known)
        for known in (True, False)
    }
    law = noise_model.photon_transfer
    truth = law.offset_adu + 2.0 * scenes(30)
    error, z = {}, {}
    for known, bundle in bundles.items():
        with OnnxDenoiser(bundle, (SIDE, SIDE), provider="cpu", region=REGION) as denoiser:
            estimate, uncertainty = denoised(denoiser, recording)
        error[known] = estimate - truth
        z[known] = error[known] / uncertainty
    hot, sound = sensor.hot, ~sensor.hot

    def mse(known, where):
        return float((error[known][:, where] ** 2).mean())

    assert mse(True, hot) < 0.05 * mse(False, hot)
    assert mse(True, hot) < 3 * mse(True, sound)  # hardly to be told from the others
    assert mse(True, sound) < 0.8 * mse(False, sound)  # nor do they spoil what is around them
    honest = z[True][:, sound].std()
    assert 0.4 < z[True][:, hot].std() < 1.5
    assert 0.5 < z[True][:, hot].std() / honest < 2  # as sure of them as of the others, no more
    assert z[False][:, hot].std() > 2


def test_the_graph_computes_what_pytorch_computes(bundles):
    assert bundles[True].manifest.figures["parity_max_relative_error"] < 1e-3


def test_the_graph_takes_the_frames_of_the_camera_alone(bundles, recording):
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(bundles[True].model_path), settings, providers=["CPUExecutionProvider"]
    )
    assert [given.name for given in session.get_inputs()] == ["observations"]
    alone = session.run(None, {"observations": recording[:1, np.newaxis]})[0]
    with OnnxDenoiser(bundles[True], (SIDE, SIDE), provider="cpu") as denoiser:
        estimate, _ = denoised(denoiser, recording[:1])
    np.testing.assert_allclose(estimate, alone[:, 0], rtol=1e-4)


def test_a_part_of_the_region_is_denoised_with_its_own_pixels(bundles, recording):
    part = (slice(24, 72), slice(12, 84))
    region = (REGION[0] + 12, REGION[1] + 24, 72, 48)
    crop = np.ascontiguousarray(recording[:4, part[0], part[1]])
    with OnnxDenoiser(bundles[True], (SIDE, SIDE), provider="cpu") as denoiser:
        whole, _ = denoised(denoiser, recording[:4])
    with OnnxDenoiser(bundles[True], (48, 72), provider="cpu", region=region) as denoiser:
        found, _ = denoised(denoiser, crop)
    inner = (slice(None), slice(16, -16), slice(16, -16))
    difference = found[inner] - whole[:, part[0], part[1]][inner]
    assert np.abs(difference).max() < 0.05 * np.ptp(whole)


def test_tiles_take_the_pixels_that_lie_under_them(bundles, recording):
    with (
        OnnxDenoiser(bundles[True], (SIDE, SIDE), provider="cpu") as whole,
        TiledDenoiser(bundles[True], (SIDE, SIDE), tile=104, provider="cpu") as tiled,
    ):
        assert tiled.tiles > 1
        expected, _ = denoised(whole, recording[:3])
        found, _ = denoised(tiled, recording[:3])
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("shape", "region"),
    [
        ((48, 72), None),  # a part, but who knows which
        ((48, 72), (0, 0, 72, 48)),  # another part of the sensor
        ((SIDE, SIDE), (0, 0, SIDE, SIDE)),
    ],
)
def test_pixels_that_the_model_does_not_know_are_refused(bundles, shape, region):
    with pytest.raises(FrameMismatchError, match="knows every pixel of 128×128 pixels at x = 200"):
        OnnxDenoiser(bundles[True], shape, provider="cpu", region=region)
    OnnxDenoiser(bundles[False], shape, provider="cpu", region=region).close()


def test_a_recording_says_which_part_it_shows(bundles, recording, tmp_path):
    camera = CameraFingerprint(camera="sCMOS", roi=(REGION[0], REGION[1] + 16, SIDE, SIDE - 16))
    stack = dataclasses.replace(
        stack_from_array(np.ascontiguousarray(recording[:3, 16:]), path="part"),
        attributes={"quietscope": {"camera": camera.model_dump(mode="json")}},
    )
    denoise_stack(stack, bundles[True], tmp_path / "out.ome.zarr", provider="cpu")
    with OnnxDenoiser(
        bundles[True], (SIDE - 16, SIDE), provider="cpu", region=camera.roi
    ) as denoiser:
        expected, _ = denoised(denoiser, recording[:3, 16:])
    found = open_stack(tmp_path / "out.ome.zarr")
    np.testing.assert_array_equal(np.stack([found.frame(i) for i in range(3)]), expected)


@pytest.mark.long
def test_recordings_of_unknown_pixels_are_trained_on_without_maps(
    noise_model, recording, tmp_path
):
    remarks: list[str] = []
    bundle = train(
        [stack_from_array(np.ascontiguousarray(recording[:, :64, :64]), path="part")],
        tmp_path / "model",
        dataclasses.replace(QUICK, steps=3),
        noise_model=noise_model,
        on_remark=remarks.append,
    ).bundle
    assert any("is not known" in remark and "hot pixels stay" in remark for remark in remarks)
    OnnxDenoiser(bundle, (50, 70), provider="cpu").close()  # any size, as ever


@pytest.mark.long
def test_a_camera_of_equal_pixels_gets_a_model_for_any_size(tmp_path):
    equal = Sensor(
        np.full((64, 64), 100.0),
        np.full((64, 64), 2.5),
        np.full((64, 64), 2.0),
        np.zeros((64, 64)),
    )
    noise_model = equal.calibrated(roi=(0, 0, 64, 64))
    assert noise_model.maps is not None
    assert not noise_model.maps.uneven
    stack = stack_from_array(equal.expose(scenes(12, (64, 64)), 5), path="recording")
    bundle = train(
        [stack], tmp_path / "model", dataclasses.replace(QUICK, steps=3), noise_model=noise_model
    ).bundle
    OnnxDenoiser(bundle, (50, 70), provider="cpu").close()


def test_a_bundle_of_before_pixel_maps_and_other_channels_still_opens(bundles, tmp_path):
    import json

    old = tmp_path / "old"
    shutil.copytree(bundles[False].path, old)
    manifest = json.loads((old / "manifest.json").read_text(encoding="utf-8"))
    del manifest["other_channels"]
    (old / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert open_bundle(old).manifest.other_channels == ()


# ------------------------------------------------------------------------ maps and the law


def test_the_tabulated_noise_of_each_pixel_is_the_calibrated_one(noise_model):
    maps, law = noise_model.maps, noise_model.photon_transfer
    signal = np.full((SIDE, SIDE), 150.0)
    table = TabulatedNoise(
        noise_model,
        low_adu=90,
        high_adu=400,
        centre_adu=120,
        scale_adu=40,
        dark_variance_adu2=noise_model.least_variance_adu2,
    )
    planes = maps.correction(
        offset_adu=law.offset_adu,
        dark_variance_adu2=noise_model.least_variance_adu2,
        range_adu=law.saturation_adu,
    )
    units = torch.full((SIDE, SIDE), (150.0 - 120) / 40)
    found = table.variance(units, torch.from_numpy(planes[2])).numpy() * 40**2
    alive = ~maps.dead
    # In units of a pixel whose response is that of the others.
    expected = noise_model.pixel_variance(signal) * planes[0] ** 2
    np.testing.assert_allclose(found[alive], expected[alive], rtol=0.05)


def test_correction_brings_every_pixel_to_the_offset_of_the_camera(sensor, noise_model):
    maps, law = noise_model.maps, noise_model.photon_transfer
    factor, summand, excess = maps.correction(
        offset_adu=law.offset_adu, dark_variance_adu2=6.25, range_adu=65535.0
    )
    corrected = sensor.offset_adu * factor + summand
    assert np.abs(corrected[~sensor.hot] - law.offset_adu).max() < 2.0
    assert excess[sensor.hot].min() > 2
    assert np.abs(np.median(excess)) < 0.2


@pytest.mark.long
def test_a_dead_pixel_says_nothing():
    sensor = Sensor.random()
    sensor.gain_adu_per_e[10, 10] = 0.05
    maps = sensor.calibrated().maps
    assert maps.dead[10, 10]
    planes = maps.correction(offset_adu=100.0, dark_variance_adu2=6.25, range_adu=65535.0)
    assert np.exp(planes[2, 10, 10]) * 6.25 == pytest.approx(65535.0**2, rel=1e-3)


@pytest.mark.parametrize(
    ("calibrated", "region", "shape", "expected"),
    [
        ((0, 0, 64, 48), (8, 4, 32, 16), (16, 32), (slice(4, 20), slice(8, 40))),
        ((0, 0, 128, 96), (16, 8, 64, 32), (16, 32), (slice(4, 20), slice(8, 40))),  # 2×2 bins
        ((0, 0, 128, 96), (17, 8, 64, 32), (16, 32), None),  # between two bins
        ((0, 0, 64, 48), (40, 4, 32, 16), (16, 32), None),  # beyond its edge
        ((0, 0, 64, 48), (8, 4, 64, 32), (16, 32), None),  # another binning
        (None, (8, 4, 64, 48), (48, 64), (slice(0, 48), slice(0, 64))),
        ((0, 0, 64, 48), None, (16, 32), None),
    ],
)
def test_the_part_of_the_maps_that_a_frame_needs(calibrated, region, shape, expected):
    assert part_of(calibrated, (48, 64), region, shape) == expected


# ------------------------------------------------------------------------------- real maps


@pytest.mark.long
@pytest.mark.realdata
@pytest.mark.parametrize(("name", "bound"), [("storm", 0.5), ("zb20", 0.9)])
def test_real_maps_make_their_hot_pixels_vanish(real_data, tmp_path, name, bound):
    # Of zb20 no offsets are known: its hot pixels are noisy alone, not bright as well, and the
    # camera's law, which leaves them out, is nearly right for the others.
    sensor = _real_sensor(real_data, name)
    noise_model = sensor.calibrated(roi=None)
    shape = sensor.hot.shape
    truth = scenes(24, shape)
    recording = sensor.expose(truth, seed=4)
    gain, offset = np.median(sensor.gain_adu_per_e), noise_model.photon_transfer.offset_adu
    mse = {}
    for known in (True, False):
        bundle = train(
            [stack_from_array(recording, path=name)],
            tmp_path / str(known),
            dataclasses.replace(QUICK, pixel_maps=known),
            noise_model=noise_model,
        ).bundle
        with OnnxDenoiser(bundle, shape, provider="cpu") as denoiser:
            estimate, uncertainty = denoised(denoiser, recording[-4:])
        error = estimate - (offset + gain * truth[-4:])
        mse[known] = {
            "all": float((error**2).mean()),
            "hot": float((error[:, sensor.hot] ** 2).mean()),
        }
        if known:
            assert 0.4 < (error / uncertainty)[:, sensor.hot].std() < 2
    assert mse[True]["hot"] < bound * mse[False]["hot"]
    # Elsewhere little is to be gained after so few steps, and nothing much to be lost.
    assert mse[True]["all"] < 1.1 * mse[False]["all"]


def _real_sensor(real_data, name: str) -> Sensor:
    if name == "storm":
        maps = np.load(
            real_data / "storm_analysis_scmos" / "calib_offset_var_gain_ALIGNED.npy",
            allow_pickle=False,
        ).astype(np.float64)
        offset, variance, gain = maps[:, :SIDE, :SIDE]
        offset = offset + 100  # theirs is relative to the camera's own
    else:
        from scipy.io import loadmat

        folder = real_data / "scmos_maps_zb20"
        variance, gain = (
            next(v for k, v in loadmat(folder / f"{f}.mat").items() if not k.startswith("__"))
            for f in ("varsub", "gainsub")
        )
        variance, gain = (np.asarray(m, np.float64)[:SIDE, :SIDE] for m in (variance, gain))
        offset = np.full(variance.shape, 100.0)
    return Sensor(offset, np.sqrt(variance), gain, variance > 8 * np.median(variance))


def test_a_dead_pixel_does_not_drown_the_variance_of_all_others():
    maps = np.zeros((3, 8, 8), np.float32)
    maps[2, 0, 0] = np.log(65535**2 / 6.0)
    maps[2, 0, 1] = np.log(60**2 / 6.0)  # hot: it still says something
    own = CameraPixels(maps, 6.0).own_variance_adu2()
    assert own[0, 0] == 0
    assert own[0, 1] == pytest.approx(60**2 - 6.0, rel=1e-4)


@pytest.mark.long
def test_a_night_of_a_moved_region_keeps_candidate_and_model(bundles, recording, tmp_path):
    camera = CameraFingerprint(camera="sCMOS", roi=(0, 0, SIDE, SIDE))
    with OmeZarrWriter(
        tmp_path / "run" / "raw.ome.zarr",
        frame_shape=(SIDE, SIDE),
        dtype="uint16",
        attributes={"quietscope": {"camera": camera.model_dump(mode="json")}},
    ) as writer:
        for t, frame in enumerate(recording[:10]):
            writer.write(frame, {"time": t})
    library = Library(tmp_path)
    library.promote(bundles[True].path, "by hand")
    found = retrain_once(tmp_path, options=dataclasses.replace(QUICK, steps=3))
    assert found.decision == "kept"
    assert found.candidate.is_dir()
    assert "cannot be compared with the model in use: frames are 128×128" in found.reason
    assert library.history()[-1].reason == found.reason
    assert library.current() == bundles[True].path


@pytest.mark.long
def test_retraining_goes_on_without_pixel_maps_where_they_were_left_out(
    bundles, noise_model, recording, tmp_path
):
    without = trained(noise_model, recording, tmp_path, 3, known=False)
    assert _options(None, bundles[True], None, 5).pixel_maps
    assert not _options(None, without, None, 5).pixel_maps
