"""`denoise`: every frame in its place, whatever the layout, also after being killed."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from quietscope.calibration.errors import CameraMismatchError
from quietscope.inference.bundle import open_bundle
from quietscope.inference.errors import BundleError, FrameMismatchError, InferenceError
from quietscope.inference.observation_reader import ObservationReader
from quietscope.inference.offline.denoise_stack import denoise_stack
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.storage.atomic_output import OutputError
from quietscope.storage.ome_zarr_writer import OmeZarrWriter
from quietscope.storage.open_stack import open_stack
from quietscope.storage.stack import stack_from_array
from quietscope.storage.writers.open_writer import OutputForm

SHAPE = (24, 32)


def pixels(*leading, seed=0):
    random = np.random.default_rng(seed)
    return random.integers(0, 4096, (*leading, *SHAPE), dtype=np.uint16)


def smoothed(frames):
    """Return what the box filter of `make_bundle` gives for (1 + T, Y, X)."""
    return ndimage.uniform_filter(np.mean(frames, axis=0, dtype=np.float64), 3, mode="nearest")


def run(stack, bundle, out, **options):
    return denoise_stack(stack, bundle, out, provider="cpu", threads=1, **options)


def test_every_frame_lands_in_its_place(make_bundle, tmp_path):
    seen = pixels(3, 2, 4)
    stack = stack_from_array(seen, axes=("time", "channel", "z"))
    result = run(stack, make_bundle(), tmp_path / "out.ome.zarr")
    assert result["frames_denoised"] == 24
    written = open_stack(tmp_path / "out.ome.zarr")
    assert dict(written.sizes) == {"time": 3, "channel": 2, "z": 4}
    assert written.dtype == np.float32
    for index in range(len(stack)):
        frame = written.frame(written.index(stack.axes(index)))
        np.testing.assert_allclose(frame, smoothed([stack.frame(index)]), rtol=1e-5)


def test_context_follows_channel_plane_and_time(make_bundle, tmp_path):
    seen = pixels(4, 2)
    stack = stack_from_array(seen, axes=("time", "channel"))
    run(stack, make_bundle(context_frames=2), tmp_path / "out.ome.zarr")
    written = open_stack(tmp_path / "out.ome.zarr")
    empty = np.zeros(SHAPE, np.uint16)
    for time_point in range(4):
        for channel in range(2):
            frames = [
                seen[time_point - back, channel] if back <= time_point else empty
                for back in range(3)
            ]
            place = written.index({"time": time_point, "channel": channel, "z": 0})
            np.testing.assert_allclose(written.frame(place), smoothed(frames), rtol=1e-5)


@pytest.mark.parametrize(("name", "imagej"), [("out.ome.tif", False), ("out.tif", True)])
def test_a_tiff_holds_what_the_store_holds(make_bundle, tmp_path, name, imagej):
    stack = stack_from_array(pixels(3, 2), axes=("time", "channel"))
    bundle = make_bundle()
    run(stack, bundle, tmp_path / "out.ome.zarr")
    run(stack, bundle, tmp_path / name, form=OutputForm(imagej=imagej))
    store = open_stack(tmp_path / "out.ome.zarr")
    with tifffile.TiffFile(tmp_path / name) as file:
        series = file.series[0]
        axes, written = series.axes, series.asarray()
    assert written.dtype == np.float32
    order = [axes.index("T"), axes.index("C"), axes.index("Y"), axes.index("X")]
    for (t, c), frame in zip(
        np.ndindex(3, 2), written.transpose(order).reshape(6, *SHAPE), strict=True
    ):
        place = store.index({"time": t, "channel": c, "z": 0})
        np.testing.assert_array_equal(frame, store.frame(place))


def test_estimates_can_be_kept_as_a_cameras_pixels(make_bundle, tmp_path):
    stack = stack_from_array(pixels(2))
    form = OutputForm(pixel_type="uint16")
    bundle = make_bundle()
    run(stack, bundle, tmp_path / "out.ome.zarr", form=form)
    run(stack, bundle, tmp_path / "out.ome.tif", form=form)
    for index, frame in enumerate(tifffile.imread(tmp_path / "out.ome.tif")):
        expected = np.rint(smoothed([stack.frame(index)]))
        assert frame.dtype == np.uint16
        assert np.abs(frame - expected).max() <= 1
        store = open_stack(tmp_path / "out.ome.zarr")
        np.testing.assert_array_equal(store.frame(index), frame)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("out.ome.tif", {"resume": True}, "cannot be resumed"),
        ("out.ome.zarr", {"form": OutputForm(imagej=True)}, "--imagej writes a TIFF"),
        ("out.png", {}, "only OME-Zarr and TIFF"),
    ],
)
def test_a_form_that_is_not_written_is_refused_before_work(
    make_bundle, tmp_path, name, options, words
):
    with pytest.raises(OutputError, match=words):
        run(stack_from_array(pixels(2)), make_bundle(), tmp_path / name, **options)
    assert not (tmp_path / name).exists()


def test_positions_become_series(make_bundle, tmp_path):
    seen = pixels(2, 3)
    stack = stack_from_array(seen, axes=("position", "time"))
    run(stack, make_bundle(), tmp_path / "out.ome.zarr")
    written = open_stack(tmp_path / "out.ome.zarr")
    assert written.sizes["position"] == 2
    for index in range(len(stack)):
        axes = {"channel": 0, "z": 0, **stack.axes(index)}
        np.testing.assert_allclose(
            written.frame(written.index(axes)), smoothed([stack.frame(index)]), rtol=1e-5
        )


def test_a_tiff_goes_in_and_its_scale_comes_out(make_bundle, tmp_path):
    tifffile.imwrite(
        tmp_path / "in.tif",
        pixels(3),
        imagej=True,
        resolution=(10.0, 10.0),
        metadata={"axes": "TYX", "unit": "um"},
    )
    run(open_stack(tmp_path / "in.tif"), make_bundle(), tmp_path / "out.ome.zarr")
    assert open_stack(tmp_path / "out.ome.zarr").pixel_size_um == pytest.approx(0.1)


def test_the_result_names_model_and_noise_model(make_bundle, tmp_path):
    bundle = make_bundle()
    run(stack_from_array(pixels(2)), bundle, tmp_path / "out.ome.zarr")
    record = open_stack(tmp_path / "out.ome.zarr").attributes["quietscope"]
    with OnnxDenoiser(bundle, SHAPE, provider="cpu") as denoiser:
        assert record["model_sha256"] == denoiser.model_sha256
        assert record["noise_model_sha256"] == denoiser.noise_model_sha256
    assert record["provider"] == "CPUExecutionProvider"


def test_the_uncertainty_has_a_store_of_its_own(make_bundle, tmp_path):
    stack = stack_from_array(pixels(2))
    run(stack, make_bundle(), tmp_path / "out.ome.zarr", uncertainty=tmp_path / "u.ome.zarr")
    estimate = open_stack(tmp_path / "out.ome.zarr").frame(1)
    deviation = open_stack(tmp_path / "u.ome.zarr").frame(1)
    np.testing.assert_allclose(deviation, np.sqrt(np.maximum(estimate / 9, 1e-3)), rtol=1e-4)


def test_a_model_per_channel(make_bundle, tmp_path):
    seen = pixels(2, 2)
    stack = stack_from_array(seen, axes=("time", "channel"))
    fine, coarse = make_bundle("fine"), make_bundle("coarse", radius=3)
    run(stack, {"0": fine, "1": coarse}, tmp_path / "out.ome.zarr")
    written = open_stack(tmp_path / "out.ome.zarr")
    for channel, edge in ((0, 3), (1, 7)):
        expected = ndimage.uniform_filter(seen[1, channel].astype(float), edge, mode="nearest")
        place = written.index({"time": 1, "channel": channel, "z": 0})
        np.testing.assert_allclose(written.frame(place), expected, rtol=1e-5)


def test_a_model_that_fails_to_open_leaves_none_open(make_bundle, tmp_path, monkeypatch):
    stack = stack_from_array(pixels(1, 2), axes=("time", "channel"))
    closed = []
    close = OnnxDenoiser.close
    monkeypatch.setattr(
        OnnxDenoiser, "close", lambda self: closed.append(self.bundle.path.name) or close(self)
    )
    broken = make_bundle("broken")
    models = {"0": make_bundle("fine"), "1": open_bundle(broken)}
    (broken / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError):
        run(stack, models, tmp_path / "out.ome.zarr")
    assert closed == ["fine"]


@pytest.mark.parametrize("names", [["2"], ["0", "2"], ["0", "1", "2"]])
def test_models_of_channels_that_are_not_there_are_named(make_bundle, tmp_path, names):
    stack = stack_from_array(pixels(1, 2), axes=("time", "channel"))
    bundle = make_bundle()
    with pytest.raises(InferenceError, match=r"channels 0, 1.*--model CHANNEL=BUNDLE"):
        run(stack, dict.fromkeys(names, bundle), tmp_path / "out.ome.zarr")


def test_a_model_of_another_channel_is_refused(make_bundle, tmp_path):
    with OmeZarrWriter(
        tmp_path / "raw.ome.zarr",
        frame_shape=SHAPE,
        dtype="uint16",
        channel_names=["GFP", "DAPI"],
    ) as writer:
        for channel in ("GFP", "DAPI"):
            writer.write(pixels(), {"time": 0, "channel": channel})
    stack = open_stack(tmp_path / "raw.ome.zarr")
    green, blue = make_bundle("green", channel="GFP"), make_bundle("blue", channel="DAPI")
    with pytest.raises(FrameMismatchError, match="channel DAPI would be denoised by a model of"):
        run(stack, green, tmp_path / "out.ome.zarr")
    forced = run(stack, green, tmp_path / "out.ome.zarr", force=True)["forced"]
    assert forced == ["channel is DAPI, trained on GFP"]
    right = run(stack, {"GFP": green, "DAPI": blue}, tmp_path / "both.ome.zarr")
    assert right["forced"] == []


def test_chosen_frames_only(make_bundle, tmp_path):
    stack = stack_from_array(pixels(5))
    result = run(stack, make_bundle(), tmp_path / "out.ome.zarr", frames=[3, 1])
    assert result["frames_denoised"] == 2
    written = open_stack(tmp_path / "out.ome.zarr")
    np.testing.assert_allclose(written.frame(3), smoothed([stack.frame(3)]), rtol=1e-5)
    assert written.present_indices.tolist() == [1, 3]


def test_tiles_give_the_same_store(make_bundle, tmp_path):
    random = np.random.default_rng(0)
    stack = stack_from_array(random.integers(0, 4096, (2, 200, 300), dtype=np.uint16))
    bundle = make_bundle()
    for name, tile in (("whole", 0), ("tiled", 64)):
        run(stack, bundle, tmp_path / f"{name}.ome.zarr", tile=tile)
    whole, tiled = (open_stack(tmp_path / f"{name}.ome.zarr") for name in ("whole", "tiled"))
    for index in range(2):
        np.testing.assert_allclose(tiled.frame(index), whole.frame(index), rtol=1e-6)


# --------------------------------------------------------------------------------- resuming


def test_resume_denoises_only_what_is_missing(make_bundle, tmp_path):
    stack, bundle = stack_from_array(pixels(6)), make_bundle()
    out = tmp_path / "out.ome.zarr"
    run(stack, bundle, out, frames=[0, 1, 4])
    steps = []
    result = run(stack, bundle, out, resume=True, on_progress=lambda *step: steps.append(step))
    assert (result["frames_denoised"], result["frames_kept"]) == (3, 3)
    assert steps[-1] == (6, 6)
    written = open_stack(out)
    for index in range(6):
        np.testing.assert_allclose(written.frame(index), smoothed([stack.frame(index)]), rtol=1e-5)
    assert run(stack, bundle, out, resume=True)["frames_denoised"] == 0


def test_resume_refuses_another_model(make_bundle, tmp_path):
    stack = stack_from_array(pixels(2))
    run(stack, make_bundle("first"), tmp_path / "out.ome.zarr", frames=[0])
    with pytest.raises(InferenceError, match="begun with another model"):
        run(stack, make_bundle("second", radius=2), tmp_path / "out.ome.zarr", resume=True)


def test_what_is_there_is_not_overwritten_unasked(make_bundle, tmp_path):
    stack, bundle, out = stack_from_array(pixels(2)), make_bundle(), tmp_path / "out.ome.zarr"
    run(stack, bundle, out)
    with pytest.raises(OutputError, match="already exists"):
        run(stack, bundle, out)
    assert run(stack, bundle, out, overwrite=True)["frames_denoised"] == 2


def test_a_killed_run_goes_on_where_it_stopped(make_bundle, tmp_path):
    bundle, out = make_bundle(), tmp_path / "out.ome.zarr"
    seen = pixels(8)
    tifffile.imwrite(tmp_path / "in.tif", seen, photometric="minisblack")
    script = textwrap.dedent(f"""
        import os, signal
        from quietscope.inference.offline.denoise_stack import denoise_stack
        from quietscope.storage.open_stack import open_stack

        def die(done, total):
            if done == 4:
                os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

        denoise_stack(open_stack({str(tmp_path / "in.tif")!r}), {str(bundle)!r}, {str(out)!r},
                      provider="cpu", on_progress=die)
    """)
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode != 0
    result = run(open_stack(tmp_path / "in.tif"), bundle, out, resume=True)
    assert result["frames_denoised"] + result["frames_kept"] == 8
    written = open_stack(out)
    for index in range(8):
        np.testing.assert_allclose(written.frame(index), smoothed([seen[index]]), rtol=1e-5)


def test_frames_that_were_never_recorded_are_left_out(make_bundle, tmp_path):
    frames = pixels(4)
    with OmeZarrWriter(tmp_path / "raw.ome.zarr", frame_shape=SHAPE, dtype="uint16") as writer:
        for time_point in (0, 1, 3):
            writer.write(frames[time_point], {"time": time_point})
    stack = open_stack(tmp_path / "raw.ome.zarr")
    result = run(stack, make_bundle(), tmp_path / "out.ome.zarr")
    assert (result["frames_denoised"], result["frames_absent"]) == (3, 1)


# ---------------------------------------------------------------------------- wrong cameras


def record_run(path, camera, dtype="uint16"):
    with OmeZarrWriter(
        path, frame_shape=SHAPE, dtype=dtype, attributes={"quietscope": {"camera": camera}}
    ) as writer:
        writer.write(pixels()[...].astype(dtype), {"time": 0})
    return open_stack(path)


def test_another_camera_is_refused_by_property(make_bundle, tmp_path):
    bundle = make_bundle(camera="Prime", gain_setting="HDR")
    stack = record_run(tmp_path / "raw.ome.zarr", {"camera": "Prime", "gain_setting": "12-bit"})
    with pytest.raises(CameraMismatchError, match="gain setting is 12-bit, calibrated with HDR"):
        run(stack, bundle, tmp_path / "out.ome.zarr")
    assert not (tmp_path / "out.ome.zarr").exists()
    result = run(stack, bundle, tmp_path / "out.ome.zarr", force=True)
    assert result["forced"] == ["gain setting is 12-bit, calibrated with HDR"]
    record = open_stack(tmp_path / "out.ome.zarr").attributes["quietscope"]
    assert record["forced"] == result["forced"]


def test_the_same_camera_runs(make_bundle, tmp_path):
    bundle = make_bundle(camera="Prime", gain_setting="HDR")
    stack = record_run(tmp_path / "raw.ome.zarr", {"camera": "Prime", "gain_setting": "HDR"})
    assert run(stack, bundle, tmp_path / "out.ome.zarr")["forced"] == []


def test_another_pixel_type_is_refused_and_widens_only_by_force(make_bundle, tmp_path):
    eight_bit = stack_from_array((pixels(2) >> 4).astype(np.uint8))
    bundle = make_bundle()
    with pytest.raises(FrameMismatchError, match=r"pixels are uint8.*takes uint16.*--force"):
        run(eight_bit, bundle, tmp_path / "out.ome.zarr")
    result = run(eight_bit, bundle, tmp_path / "out.ome.zarr", force=True)
    assert result["forced"] == ["pixels are uint8, trained on uint16"]
    np.testing.assert_allclose(
        open_stack(tmp_path / "out.ome.zarr").frame(0), smoothed([eight_bit.frame(0)]), rtol=1e-5
    )


def test_a_pixel_type_that_does_not_fit_is_refused_even_by_force(make_bundle, tmp_path):
    with pytest.raises(FrameMismatchError, match="takes uint8") as caught:
        run(
            stack_from_array(pixels(1)),
            make_bundle(pixel_type="uint8"),
            tmp_path / "out.ome.zarr",
            force=True,
        )
    assert "--force" not in str(caught.value)


# -------------------------------------------------------------------------------- memory


def test_only_context_is_held():
    stack = stack_from_array(pixels(10))
    reads = []
    counting = stack_from_array(pixels(10))
    object.__setattr__(counting, "read", lambda place: reads.append(place) or stack.read(place))
    reader = ObservationReader(counting, np.dtype(np.uint16))
    for index in range(10):
        got = reader.read(index, 3)
        np.testing.assert_array_equal(got, stack.observations(index, 3))
        assert len(reader._held) <= 4
    assert len(reads) == 10
