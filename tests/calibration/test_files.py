import io
import json
import os
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from quietscope.calibration.errors import CalibrationError
from quietscope.calibration.fingerprint import CameraFingerprint
from quietscope.calibration.fit_camera import fit_camera
from quietscope.calibration.gaussian_mixture import GaussianMixtureNoiseModel
from quietscope.calibration.juglab_files import save_juglab_noise_model
from quietscope.calibration.noise_files import load_noise_model, save_noise_model
from quietscope.calibration.straight_line import Interval
from quietscope.storage.atomic_output import OutputError
from quietscope.storage.stack import stack_from_array


@pytest.fixture(scope="module")
def model() -> GaussianMixtureNoiseModel:
    rng = np.random.default_rng(0)

    def level(electrons: float):
        count = rng.poisson(electrons, (40, 32, 32))
        adu = np.rint(2.0 * (count + rng.normal(0, 1.5, count.shape)) + 100)
        return stack_from_array(adu.astype(np.uint16), path=f"{electrons}")

    fingerprint = CameraFingerprint(camera="Zyla", roi=(0, 0, 32, 32))
    levels = [level(e) for e in (5, 20, 100, 400, 1000)]
    return fit_camera(levels, dark=level(0), fingerprint=fingerprint).noise_model


GRID = np.linspace(100, 2000, 50)


def test_round_trip_is_exact(model, tmp_path):
    path = tmp_path / "with a space.npz"
    save_noise_model(model, path)
    again = load_noise_model(path)
    assert np.array_equal(again.variance(GRID), model.variance(GRID))
    assert np.array_equal(
        again.log_likelihood(GRID + 3, GRID), model.log_likelihood(GRID + 3, GRID)
    )
    assert again.fingerprint == model.fingerprint
    assert again.photon_transfer == model.photon_transfer
    assert again.source == "calibrated"
    assert np.array_equal(again.maps.variance_adu2, model.maps.variance_adu2)
    assert again.maps.hot.dtype == bool
    assert {check["name"] for check in again.record["checks"]} >= {"motion", "saturation"}


def test_no_pickles_inside(model, tmp_path):
    path = tmp_path / "camera.npz"
    save_noise_model(model, path)
    with np.load(path, allow_pickle=False) as file:
        for name in file.files:
            assert file[name].dtype != object


def test_nothing_is_overwritten_unasked(model, tmp_path):
    path = tmp_path / "camera.npz"
    path.write_bytes(b"precious")
    with pytest.raises(OutputError, match="already exists"):
        save_noise_model(model, path, overwrite=False)
    assert path.read_bytes() == b"precious"


def test_a_pickle_is_refused(tmp_path):
    path = tmp_path / "evil.npz"
    np.savez(path, format=np.array([object()], dtype=object))
    with pytest.raises(CalibrationError, match="no noise model"):
        load_noise_model(path)


def _altered(model, path, **changes):
    save_noise_model(model, path)
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(path, **{**arrays, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": np.array(99)}, "version 99, expected 2"),
        ({"variance_adu2": np.array([1.0])}, "damaged noise model"),
        ({"shape_weights": np.array([[np.nan]])}, "damaged noise model"),
        ({"header": np.array('{"gain": 1}')}, "damaged noise model"),
        ({"header": np.array("not json")}, "damaged noise model"),
        ({"header": np.array(["a", "list"])}, "damaged noise model"),
        ({"version": np.zeros((3, 3))}, "expected 2"),
        ({"signal_adu": np.array([])}, "damaged noise model"),
        ({"shape_weights": np.array(1.0)}, "damaged noise model"),
        ({"shape_weights": np.full((4, 1), -0.25)}, "damaged noise model"),
        ({"variance_adu2": np.array(["much"])}, "damaged noise model"),
        ({"variance_adu2": np.array([1j])}, "damaged noise model"),
        ({"map_hot": np.zeros(3, bool)}, "do not fit each other"),
        ({"map_variance_adu2": np.full((32, 32), np.inf)}, "damaged noise model"),
        ({"signal_adu": np.zeros(3_000_000)}, "unpacks to"),
        ({"format": np.array("something else")}, "expected a noise model of quietscope"),
    ],
)
def test_altered_files_are_refused_in_one_line(model, tmp_path, changes, message):
    path = tmp_path / "camera.npz"
    _altered(model, path, **changes)
    with pytest.raises(CalibrationError, match=message) as error:
        load_noise_model(path)
    assert "\n" not in str(error.value)


def test_other_files_are_refused(tmp_path):
    for name, content in (("empty.npz", b""), ("text.npz", b"hello"), ("cut.npz", b"PK\3\4rest")):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(CalibrationError, match="noise model"):
            load_noise_model(path)
    with pytest.raises(CalibrationError, match="no readable noise model"):
        load_noise_model(tmp_path / "missing.npz")


def _npy(shape: tuple[int, ...], content: bytes) -> bytes:
    """An array that claims a shape and holds something else."""
    file = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + content


@pytest.mark.parametrize("shape", [(2**58,), (2**40, 2**40), (10**7,)])
def test_an_array_that_claims_more_than_it_has_is_refused(model, tmp_path, shape):
    path = tmp_path / "huge.npz"
    save_noise_model(model, path)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("signal_adu.npy", _npy(shape, b"\0" * 80))
    with pytest.raises(CalibrationError, match="no noise model") as error:
        load_noise_model(path)
    assert "\n" not in str(error.value)


def test_a_deflate_bomb_is_refused_without_being_unpacked(tmp_path):
    path = tmp_path / "bomb.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("map_offset_adu.npy", "w", force_zip64=True) as member,
    ):
        for _ in range(64):
            member.write(bytes(2**20))
    with pytest.raises(CalibrationError, match="unpacks to 67108864 bytes"):
        load_noise_model(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
def test_a_pipe_that_nobody_writes_to_is_no_reason_to_wait(tmp_path):
    pipe = tmp_path / "camera.npz"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path):
        with pytest.raises(CalibrationError, match="no ordinary file"):
            load_noise_model(path)


# ------------------------------------------------ what is written is read back, or not written


def _with_gain(model, gain: Interval):
    return replace(model, photon_transfer=replace(model.photon_transfer, gain=gain))


def test_an_interval_without_an_end_comes_back(model, tmp_path):
    path = tmp_path / "camera.npz"
    endless = _with_gain(model, Interval(1e-9, 0.0, np.inf))
    save_noise_model(endless, path)
    assert load_noise_model(path).photon_transfer == endless.photon_transfer
    with np.load(path) as file:
        json.loads(str(file["header"]), parse_constant=pytest.fail)


def test_files_that_wrote_infinity_as_null_still_open(model, tmp_path):
    path = tmp_path / "old.npz"
    save_noise_model(model, path)
    with np.load(path) as file:
        header = json.loads(str(file["header"]))
    del header["pivot_adu"], header["pivot_half_adu2"]
    header["gain"] |= {"low": 0.0, "high": None}
    _altered(model, path, header=np.array(json.dumps(header)), version=np.array(1))
    assert load_noise_model(path).photon_transfer.gain.high == np.inf


@pytest.mark.parametrize(
    "gain", [Interval(np.nan, 0.0, 1.0), Interval(np.inf, 0.0, np.inf), Interval(1.0, 2.0, 3.0)]
)
def test_a_model_that_no_reader_takes_is_not_written(model, tmp_path, gain):
    path = tmp_path / "camera.npz"
    save_noise_model(model, path)
    before = path.read_bytes()
    with pytest.raises(CalibrationError, match=r"camera.npz: not written.*gain") as error:
        save_noise_model(_with_gain(model, gain), path)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["camera.npz"]


# ----------------------------------------------------------- juglab's and CAREamics' files


def published_density(params, x: float, s: float) -> float:
    """Say what the published description of the format says, one number at a time."""
    weight = params["trained_weight"]
    low, high = float(params["min_signal"][0]), float(params["max_signal"][0])
    gaussians = weight.shape[0] // 3
    u = (s - low) / (high - low)

    def polynomial(coefficients):
        return sum(float(c) * u**i for i, c in enumerate(coefficients))

    means = [polynomial(weight[k]) for k in range(gaussians)]
    variances = [
        max(polynomial(np.exp(weight[gaussians + k])), float(params["min_sigma"]))
        for k in range(gaussians)
    ]
    alphas = [np.exp(polynomial(weight[2 * gaussians + k])) for k in range(gaussians)]
    alphas = [a / sum(alphas) for a in alphas]
    centre = sum(a * m for a, m in zip(alphas, means, strict=True))
    return sum(
        a * np.exp(-((x - (m - centre + s)) ** 2) / (2 * v)) / np.sqrt(2 * np.pi * v)
        for a, m, v in zip(alphas, means, variances, strict=True)
    )


@pytest.fixture
def juglab_file(tmp_path):
    rng = np.random.default_rng(3)
    gaussians = 3
    weight = rng.normal(size=(3 * gaussians, 2)).astype(np.float32)
    weight[:gaussians] *= 20
    weight[gaussians : 2 * gaussians, 0] += 5
    weight[gaussians : 2 * gaussians, 1] += np.log(3000)
    path = tmp_path / "GMMNoiseModel.npz"
    np.savez(
        path,
        trained_weight=weight,
        min_signal=np.array([484.85], np.float32),
        max_signal=np.array([3235.01], np.float32),
        min_sigma=50,
    )
    return path


def test_their_models_open_with_their_own_formula(juglab_file):
    found = load_noise_model(juglab_file)
    params = dict(np.load(juglab_file))
    assert found.signal_range_adu == pytest.approx((484.85, 3235.01))
    for s in np.linspace(490, 3200, 9):
        sigma = float(np.sqrt(found.variance(s)))
        for shift in (-1.5, 0.0, 0.8, 2.5):
            x = s + shift * sigma
            truth = published_density(params, x, s)
            assert float(found.log_likelihood(x, s)) == pytest.approx(np.log(truth), abs=0.05)


def test_our_models_leave_in_their_form(model, tmp_path):
    path = tmp_path / "for_careamics.npz"
    cost = save_juglab_noise_model(model, path)
    assert cost < 0.01
    params = dict(np.load(path, allow_pickle=False))
    assert set(params) == {"trained_weight", "min_signal", "max_signal", "min_sigma"}
    assert params["trained_weight"].shape == (9, 3)
    assert params["min_signal"].shape == (1,)
    for s in (150.0, 500.0, 1500.0):
        x = np.linspace(s - 300, s + 300, 1201)
        theirs = np.array([published_density(params, v, s) for v in x])
        step = x[1] - x[0]
        assert theirs.sum() * step == pytest.approx(1, abs=2e-3)
        assert (theirs * x).sum() * step == pytest.approx(s, abs=0.5)
        variance = (theirs * (x - s) ** 2).sum() * step
        assert variance == pytest.approx(float(model.variance(s)), rel=0.05)


def test_a_model_that_went_both_ways_is_still_the_same(model, tmp_path):
    path = tmp_path / "there.npz"
    save_juglab_noise_model(model, path)
    back = load_noise_model(path)
    grid = np.linspace(130, 2000, 20)
    assert back.variance(grid) == pytest.approx(model.variance(grid), rel=0.06)


def test_their_file_without_a_rising_range_is_refused(juglab_file):
    params = dict(np.load(juglab_file))
    np.savez(juglab_file, **{**params, "max_signal": np.array([1.0])})
    with pytest.raises(CalibrationError, match="expected \\(3·gaussians, coefficients\\)"):
        load_noise_model(juglab_file)


@pytest.mark.parametrize(
    "change",
    [
        {"trained_weight": np.full((9, 2), 1e4, np.float32)},
        {"trained_weight": np.full((9, 2), np.nan, np.float32)},
        {"trained_weight": np.zeros((3, 100_000), np.float32)},
        {"trained_weight": np.zeros((0, 2), np.float32)},
        {"min_signal": np.array([])},
        {"min_sigma": np.array("fifty")},
    ],
)
def test_their_damaged_files_are_refused_in_one_line(juglab_file, change):
    np.savez(juglab_file, **{**dict(np.load(juglab_file)), **change})
    with pytest.raises(CalibrationError, match="export the model again") as error:
        load_noise_model(juglab_file)
    assert "\n" not in str(error.value)


def test_the_archive_is_a_plain_zip_of_arrays(model, tmp_path):
    path = tmp_path / "camera.npz"
    save_noise_model(model, path)
    with zipfile.ZipFile(path) as archive:
        assert all(name.endswith(".npy") for name in archive.namelist())
    with np.load(path) as file:
        header = json.loads(str(file["header"]))
    assert header["fingerprint"]["camera"] == "Zyla"
