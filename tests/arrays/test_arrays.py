"""Arrays of every kind go in and come back in their own form, with the commands' own numbers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

import quietscope as qs
from quietscope.arrays.array_stack import as_stack
from quietscope.arrays.errors import ArrayError, ArrayTypeError
from quietscope.arrays.python_words import in_python
from quietscope.calibration.errors import CalibrationError
from quietscope.errors import QuietscopeError
from quietscope.inference.classical.smoothing import gaussian
from quietscope.inference.errors import InferenceError
from quietscope.inference.offline.denoise_stack import denoise_stack
from quietscope.storage.open_stack import open_stack
from quietscope.storage.stack import stack_from_array
from quietscope.training.errors import TrainingDataError, TrainingError

SHAPE = (24, 32)


def noisy(*leading, seed=0):
    levels = np.linspace(20, 300, SHAPE[1]) * np.ones(SHAPE)
    return np.random.default_rng(seed).poisson(levels, (*leading, *SHAPE)).astype(np.uint16)


@pytest.fixture
def model(make_bundle):
    return qs.load(make_bundle(context_frames=1))


def test_a_model_gives_what_the_command_writes(model, tmp_path):
    frames = noisy(5)
    denoise_stack(stack_from_array(frames), model.path, tmp_path / "out.ome.zarr")
    written = open_stack(tmp_path / "out.ome.zarr")
    told = []
    found, scatter = model.denoise(
        frames, uncertainty=True, on_progress=lambda done, total: told.append((done, total))
    )
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, written.frames(range(5)))
    assert scatter.shape == found.shape
    assert (scatter > 0).all()
    assert told[-1] == (5, 5)


def test_a_filter_gives_what_it_computes():
    frames = noisy(3)
    found = qs.denoise(frames, method="gaussian", strength=1.0)
    np.testing.assert_allclose(found[1], gaussian(frames[1].astype(np.float32), 1.0), rtol=1e-5)
    averaged = qs.denoise(frames, method="identity", frames=2)
    np.testing.assert_allclose(averaged[2], frames[1:].mean(axis=0), rtol=1e-6)
    one = qs.denoise(frames[1], method="gaussian", strength=1.0)
    np.testing.assert_array_equal(one, found[1])


def test_dimensions_come_back_in_their_order(model):
    """Preceding frames are those along time, wherever that dimension stands."""
    frames = noisy(2, 4)
    expected = np.stack([model.denoise(frames[plane]) for plane in range(2)])
    np.testing.assert_array_equal(model.denoise(frames, axes="ztyx"), expected)
    turned = frames.transpose(3, 1, 2, 0)
    found = model.denoise(turned, axes=("x", "time", "y", "z"))
    np.testing.assert_array_equal(found, expected.transpose(3, 1, 2, 0))


def test_zarr_is_read_frame_by_frame(model, tmp_path):
    stored = zarr.create_array(tmp_path / "a.zarr", data=noisy(4), chunks=(1, *SHAPE))
    np.testing.assert_array_equal(model.denoise(stored), model.denoise(noisy(4)))


def test_dask_is_denoised_when_it_is_computed(model):
    da = pytest.importorskip("dask.array")
    frames = noisy(2, 3)
    lazy, scatter = model.denoise(
        da.from_array(frames, chunks=(1, 1, *SHAPE)), axes="tzyx", uncertainty=True
    )
    expected = model.denoise(frames, axes="tzyx")
    assert type(lazy) is da.Array
    assert lazy.chunksize == (1, 1, *SHAPE)
    np.testing.assert_array_equal(lazy[1, 2].compute(), expected[1, 2])
    np.testing.assert_array_equal(lazy.compute(scheduler="threads"), expected)
    assert scatter[0, 0].compute().shape == SHAPE
    with pytest.raises(QuietscopeError, match="takes uint16"):
        model.denoise(da.from_array(frames.astype(np.float32)), axes="tzyx")


@pytest.mark.parametrize(
    "form",
    [np.asfortranarray, lambda frames: frames.astype(">u2"), lambda frames: frames[::-1][::-1]],
    ids=["fortran", "big-endian", "negative strides"],
)
def test_pixels_are_the_same_however_they_lie(model, form):
    frames = noisy(3)
    given = form(frames)
    given.flags.writeable = False
    np.testing.assert_array_equal(model.denoise(given), model.denoise(frames))


def test_what_would_be_read_wrongly_in_silence_is_refused(model):
    """Colours as time, masked pixels as pixels, options of filters by a model."""
    with pytest.raises(ArrayError, match=r'3 colours or channels.*axes="yxc"'):
        model.denoise(np.zeros((*SHAPE, 3), np.uint16))
    assert model.denoise(np.full((*SHAPE, 3), 100, np.uint16), axes="yxc").shape == (*SHAPE, 3)
    with pytest.raises(ArrayError, match="pixels are masked"):
        model.denoise(np.ma.masked_greater(noisy(2), 50))
    with pytest.raises(ArrayError, match="no use for frames, strength"):
        qs.denoise(noisy(2), model=model, frames=5, strength=1.0)
    with pytest.raises(ArrayError, match="brings its own noise_model"):
        qs.evaluate(noisy(8), model=model, static=True, noise_model=model.noise_model)
    with pytest.raises(ArrayTypeError, match="axes is 3"):
        model.denoise(noisy(2), axes=3)
    with pytest.raises(ArrayError, match=r"axes are z, y, x, those of .* are time, y, x"):
        model.denoise(stack_from_array(noisy(2)), axes="zyx")
    with pytest.raises(TypeError, match=r"compare\(\) got an unexpected keyword .*'chanel'"):
        qs.compare(noisy(2), "nowhere", static=True, chanel="GFP")


def test_axes_that_a_file_does_not_say_are_those_that_are_given(tmp_path):
    """Planes of a z-stack are no preceding frames."""
    frames = noisy(3, 2)
    tifffile.imwrite(tmp_path / "plain.tif", frames, photometric="minisblack")
    found = as_stack(tmp_path / "plain.tif", "zcyx").stack
    assert dict(found.sizes) == {"z": 3, "channel": 2}
    last = found.frame(found.index({"z": 2, "channel": 1}))
    np.testing.assert_array_equal(last, frames[2, 1])


def test_arrays_of_unknown_size_or_other_libraries_say_what_to_do(model):
    da = pytest.importorskip("dask.array")
    frames = da.from_array(noisy(4), chunks=(1, *SHAPE))
    with pytest.raises(ArrayError, match="compute_chunk_sizes"):
        model.denoise(frames[frames.mean(axis=(1, 2)) > 0])
    torch = pytest.importorskip("torch")
    with pytest.raises(ArrayTypeError, match=r"torch\.float32 of torch.*numpy.asarray"):
        model.denoise(torch.zeros(2, 8, 8))


def test_the_general_model_is_made_for_the_recording(model, monkeypatch, tmp_path):
    monkeypatch.setattr("quietscope.inference.general.for_camera._cache", lambda: tmp_path)
    frames = noisy(4)
    found = qs.denoise(frames, model="general", noise_model=model.noise_model)
    assert found.shape == frames.shape
    truth = np.linspace(20, 300, SHAPE[1]) * np.ones(SHAPE)
    assert np.abs(found - truth).mean() < np.abs(frames - truth).mean()


def test_xarray_keeps_its_names(model):
    xr = pytest.importorskip("xarray")
    given = xr.DataArray(
        noisy(3, 2),
        dims=("t", "c", "y", "x"),
        coords={"c": ["GFP", "DAPI"], "t": [0.0, 0.5, 1.0]},
        attrs={"exposure_ms": 20},
        name="cells",
    )
    found = model.denoise(given)
    assert found.dims == given.dims
    assert found.name == "cells"
    assert found.attrs == given.attrs
    assert list(found.c.values) == ["GFP", "DAPI"]
    assert as_stack(given).stack.channel_names == ("GFP", "DAPI")
    plain = model.denoise(given.values, axes="tcyx")
    np.testing.assert_array_equal(found.values, plain)


def test_scores_are_those_of_the_command(model):
    frames = noisy(8)
    by_model = qs.evaluate(frames, model=model, static=True)
    assert by_model.result()["frames"] == 8
    truth = np.linspace(20, 300, SHAPE[1]).astype(np.float32) * np.ones(SHAPE, np.float32)
    by_filter = qs.evaluate(frames, method="gaussian", truth=truth)
    assert by_filter.result()["method"]["name"] == "gaussian"
    assert by_filter.result()["psnr_db"] > by_filter.result()["psnr_raw_db"]
    two = np.stack([frames, noisy(8)])
    with pytest.raises(ArrayError, match=r'several channels; name one of 0, 1, as channel="0"'):
        qs.evaluate(two, method="gaussian", static=True, axes="ctyx")
    of_one = qs.evaluate(
        two, method="gaussian", truth=truth, channel="0", axes="ctyx", strength=1.0
    )
    alone = qs.evaluate(frames, method="gaussian", truth=truth, strength=1.0)
    assert of_one.result()["psnr_db"] == alone.result()["psnr_db"]


def test_a_camera_is_calibrated_from_arrays(tmp_path):
    random = np.random.default_rng(0)
    levels = [
        (100 + 2 * random.poisson(light, (40, 32, 32)) + random.normal(0, 3, (40, 32, 32)))
        .round()
        .astype(np.uint16)
        for light in (10, 60, 200, 600)
    ]
    dark = (100 + random.normal(0, 3, (40, 32, 32))).round().astype(np.uint16)
    found = qs.calibrate(levels, dark=dark, out=tmp_path / "camera.npz")
    assert found.photon_transfer.gain_adu_per_e == pytest.approx(2, rel=0.03)
    smooth = qs.denoise(levels[0], method="total-variation", noise_model=found, strength=1.0)
    stored = tmp_path / "camera.npz"
    again = qs.denoise(levels[0], method="total-variation", noise_model=stored, strength=1.0)
    np.testing.assert_allclose(again, smooth, rtol=1e-4)
    with pytest.raises(CalibrationError):
        qs.calibrate([np.full((4, 8, 8), 7, np.uint16)])


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ([[1, 2]], ArrayTypeError, "given list; make an array of it"),
        (np.zeros((4, 8, 8)), ArrayError, 'pixels are float64.*array.astype\\("float32"\\)'),
        (np.zeros((2, 2, 8, 8), np.uint16), ArrayError, '4 dimensions.*axes="tzyx"'),
        (np.zeros(8, np.uint16), ArrayError, "1 dimensions"),
    ],
)
def test_what_is_no_recording_is_said_in_one_sentence(given, kind, message):
    with pytest.raises(kind, match=message) as caught:
        qs.denoise(given, method="gaussian")
    assert isinstance(caught.value, ValueError | TypeError)
    assert "\n" not in str(caught.value)


def test_arguments_that_contradict_each_other_are_refused(tmp_path):
    frames = noisy(3)
    with pytest.raises(ArrayError, match="axes are z, y, x, q"):
        qs.denoise(frames, method="gaussian", axes="zyxq")
    with pytest.raises(ArrayError, match="either model="):
        qs.denoise(frames)
    with pytest.raises(ArrayError, match="a filter has no use for uncertainty"):
        qs.denoise(frames, method="gaussian", uncertainty=True)
    with pytest.raises(TypeError, match=r"train\(\).*'context'"):
        qs.train(frames, tmp_path / "model", context=3)
    with pytest.raises(TrainingError, match="algorithm is 'magic'"):
        qs.train(frames, tmp_path / "model", algorithm="magic")


def test_importing_it_loads_nothing():
    program = (
        "import sys, quietscope as qs\n"
        "heavy = {'torch', 'onnxruntime', 'numpy', 'pydantic', 'skimage', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert {'train', 'denoise'} <= set(dir(qs))\n"
        "qs.denoise\n"
        "assert not {'torch', 'matplotlib', 'pymmcore'} & set(sys.modules)\n"
        "try:\n    qs.nothing\nexcept AttributeError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "has no attribute 'nothing'" in done.stdout


GUIDE = Path(__file__).parents[2] / "docs" / "python.md"


@pytest.mark.long
def test_the_guide_runs_as_it_stands(tmp_path, monkeypatch):
    """Every example of docs/python.md, in order, in one namespace, in an empty folder."""
    pytest.importorskip("xarray")
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) >= 6
    namespace: dict[str, object] = {}
    for example in examples:
        exec(compile(example, str(GUIDE), "exec"), namespace)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("give either --truth STACK or --static", "give either truth= or static=True"),
        ("that --planes 2 could show", "that planes=2 could show"),
        ("train with --algorithm r2r", 'train with algorithm="r2r"'),
        ("is trained; --algorithm chooses otherwise", "is trained; algorithm= chooses otherwise"),
        ("--from general, which begins with it", 'algorithm="refined", which begins with it'),
        ("(or --no-pixel-maps, where", "(or pixel_maps=False, where"),
        ("with `quietscope export --axes tzyx`", "with `quietscope export --axes tzyx`"),
        ("give --out another name", "give --out another name"),
    ],
)
def test_options_become_arguments(line, said):
    assert in_python(line) == said


def test_refusals_name_arguments_and_keep_their_kind(model, tmp_path):
    frames = noisy(8)
    with pytest.raises(InferenceError, match="either truth= or static=True"):
        qs.evaluate(frames, method="gaussian")
    with pytest.raises(InferenceError, match="either truth= or static=True"):
        qs.evaluate(frames, model=model)
    two = np.stack([frames, frames])
    with pytest.raises(TrainingDataError, match=r"holds 2 channels; name one with channel= and"):
        qs.train(two, tmp_path / "a", axes="ctyx", steps=1)
    with pytest.raises(TrainingDataError, match=r"no planes along z .* planes=1 could show"):
        qs.train(frames, tmp_path / "b", steps=1, planes=1)
