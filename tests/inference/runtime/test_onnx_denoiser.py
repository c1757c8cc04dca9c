"""The ONNX denoiser: the model's own answer on the processor asked for, or a refusal."""

from __future__ import annotations

import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from quietscope.inference.denoiser import Denoiser
from quietscope.inference.errors import (
    BundleError,
    FrameMismatchError,
    InferenceError,
    ProviderError,
)
from quietscope.inference.runtime import providers, session_opening
from quietscope.inference.runtime.buffers import HostBuffers
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser

SHAPE = (40, 56)


def observations(context_frames=0, shape=SHAPE, seed=0):
    random = np.random.default_rng(seed)
    return random.integers(0, 65536, (1 + context_frames, *shape), dtype=np.uint16)


def outputs(shape=SHAPE):
    return np.full((2, *shape), np.nan, np.float32)


def test_the_answer_is_the_graph_s_own(make_bundle):
    seen, out = observations(), outputs()
    with OnnxDenoiser(make_bundle(), SHAPE, provider="cpu") as denoiser:
        denoiser.denoise(seen, out)
    expected = ndimage.uniform_filter(seen[0].astype(np.float64), 3, mode="nearest")
    np.testing.assert_allclose(out[0], expected, rtol=1e-5)
    np.testing.assert_allclose(out[1], np.sqrt(np.maximum(expected / 9, 1e-3)), rtol=1e-5)


def test_every_frame_gets_its_own_answer(make_bundle):
    """Buffers are reused: a frame must not see what the one before left behind."""
    frames = [observations(seed=seed) for seed in range(5)]
    with OnnxDenoiser(make_bundle(), SHAPE, provider="cpu") as denoiser:
        results = [outputs() for _ in frames]
        for frame, out in zip(frames, results, strict=True):
            denoiser.denoise(frame, out)
        again = outputs()
        denoiser.denoise(frames[0], again)
    np.testing.assert_array_equal(again, results[0])
    for frame, out in zip(frames, results, strict=True):
        expected = ndimage.uniform_filter(frame[0].astype(np.float64), 3, mode="nearest")
        np.testing.assert_allclose(out[0], expected, rtol=1e-5)


def test_context_frames_reach_the_graph_newest_first(make_bundle):
    seen, out = observations(context_frames=2), outputs()
    with OnnxDenoiser(make_bundle(context_frames=2), SHAPE, provider="cpu") as denoiser:
        assert denoiser.context_frames == 2
        denoiser.denoise(seen, out)
    expected = ndimage.uniform_filter(seen.mean(axis=0), 3, mode="nearest")
    np.testing.assert_allclose(out[0], expected, rtol=1e-5)


def test_it_is_a_denoiser_and_says_what_runs(make_bundle):
    with OnnxDenoiser(make_bundle(), SHAPE, provider="cpu") as denoiser:
        assert isinstance(denoiser, Denoiser)
        assert denoiser.provider == "CPUExecutionProvider"
        assert "cores" in denoiser.device
        assert denoiser.model_sha256 == denoiser.bundle.manifest.sha256["model.onnx"]
        assert denoiser.noise_model_sha256 == denoiser.bundle.manifest.sha256["noise_model.npz"]


@given(rows=st.integers(1, 70), columns=st.integers(1, 70))
def test_any_frame_shape_runs(make_bundle, tmp_path, rows, columns):
    path = tmp_path / "model"
    bundle = path if path.exists() else make_bundle()
    shape = (rows, columns)
    with OnnxDenoiser(bundle, shape, provider="cpu", threads=1) as denoiser:
        out = outputs(shape)
        denoiser.denoise(observations(shape=shape), out)
    assert np.isfinite(out).all()


def test_the_result_does_not_depend_on_the_number_of_threads(make_bundle):
    bundle, seen = make_bundle(), observations()
    results = []
    for threads in (1, 2):
        with OnnxDenoiser(bundle, SHAPE, provider="cpu", threads=threads) as denoiser:
            results.append(outputs())
            denoiser.denoise(seen, results[-1])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-6)


@pytest.mark.parametrize(
    ("frame", "out", "expected"),
    [
        (np.zeros((1, 40, 55), np.uint16), outputs(), r"\(1, 40, 55\).*\(1, 40, 56\)"),
        (np.zeros((2, *SHAPE), np.uint16), outputs(), r"\(2, 40, 56\).*\(1, 40, 56\)"),
        (np.zeros((1, *SHAPE), np.uint8), outputs(), "uint8.*uint16"),
        (np.zeros((1, *SHAPE), np.uint16), outputs().astype(np.float64), "float64.*float32"),
        (np.zeros((1, *SHAPE), np.uint16), outputs()[:1], r"float32 \(2, 40, 56\)"),
    ],
)
def test_frames_that_do_not_fit_are_refused_by_name(make_bundle, frame, out, expected):
    with (
        OnnxDenoiser(make_bundle(), SHAPE, provider="cpu") as denoiser,
        pytest.raises(FrameMismatchError, match=expected),
    ):
        denoiser.denoise(frame, out)


def test_a_closed_denoiser_says_so(make_bundle):
    denoiser = OnnxDenoiser(make_bundle(), SHAPE, provider="cpu")
    denoiser.close()
    denoiser.close()
    with pytest.raises(InferenceError, match="closed"):
        denoiser.denoise(observations(), outputs())


def test_the_caller_s_arithmetic_is_left_as_it_is(make_bundle):
    """A runtime that flushes denormals to zero does so in the user's whole thread."""
    with OnnxDenoiser(make_bundle(), SHAPE, provider="cpu") as denoiser:
        denoiser.denoise(observations(), outputs())
    assert np.float64(5e-324) / 1.0 > 0
    assert np.array([1e-310]).sum() > 0


def test_two_denoisers_run_side_by_side(make_bundle):
    bundle = make_bundle()
    frames = [observations(seed=seed) for seed in range(2)]
    results = [outputs() for _ in frames]

    def run(index):
        with OnnxDenoiser(bundle, SHAPE, provider="cpu", threads=1) as denoiser:
            for _ in range(20):
                denoiser.denoise(frames[index], results[index])

    threads = [threading.Thread(target=run, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for frame, out in zip(frames, results, strict=True):
        expected = ndimage.uniform_filter(frame[0].astype(np.float64), 3, mode="nearest")
        np.testing.assert_allclose(out[0], expected, rtol=1e-5)


# ------------------------------------------------------------------------------ refusals


def test_an_altered_graph_is_refused(make_bundle):
    bundle = make_bundle()
    with (bundle / "model.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match=r"model\.onnx was changed"):
        OnnxDenoiser(bundle, SHAPE)


def test_a_graph_that_contradicts_its_manifest_is_refused(make_bundle):
    eight_bit = make_bundle("eight", pixel_type="uint8")
    import onnx

    graph = onnx.load(str(eight_bit / "model.onnx"))
    with pytest.raises(BundleError, match=r"1 frames of uint8.*1 of uint16"):
        OnnxDenoiser(make_bundle("liar", graph=graph), SHAPE)


def test_a_graph_with_other_outputs_is_refused(make_bundle):
    import onnx

    graph = onnx.load(str(make_bundle("good") / "model.onnx"))
    del graph.graph.output[1]
    with pytest.raises(BundleError, match="gives denoised, expected observations in"):
        OnnxDenoiser(make_bundle("bad", graph=graph), SHAPE)


def test_an_opset_from_the_future_is_refused(make_bundle):
    import onnx

    graph = onnx.load(str(make_bundle("good") / "model.onnx"))
    graph.opset_import[0].version = 999
    with pytest.raises(BundleError, match="cannot be run by ONNX Runtime"):
        OnnxDenoiser(make_bundle("future", graph=graph), SHAPE)


def test_a_file_that_is_no_graph_is_refused(make_bundle):
    from quietscope.inference.bundle import file_sha256, open_bundle

    path = make_bundle()
    before = file_sha256(path / "model.onnx")
    (path / "model.onnx").write_bytes(b"no graph at all")
    manifest = (path / "manifest.json").read_text(encoding="utf-8")
    (path / "manifest.json").write_text(
        manifest.replace(before, file_sha256(path / "model.onnx")), encoding="utf-8"
    )
    open_bundle(path)
    with pytest.raises(BundleError, match="no readable ONNX file"):
        OnnxDenoiser(path, SHAPE)


@pytest.mark.parametrize("shape", [(0, 4), (4, -1)])
def test_an_empty_frame_shape_is_refused(make_bundle, shape):
    with pytest.raises(FrameMismatchError, match="at least one pixel"):
        OnnxDenoiser(make_bundle(), shape)


def test_an_unknown_provider_is_named(make_bundle):
    with pytest.raises(ProviderError, match="'gpu', expected one of auto, cpu"):
        OnnxDenoiser(make_bundle(), SHAPE, provider="gpu")


@pytest.mark.skipif(providers.cuda_device_name() is not None, reason="this machine has a GPU")
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_no_gpu_is_an_error_that_names_the_library_and_the_remedy(make_bundle, capfd, provider):
    with pytest.raises(ProviderError, match=rf"{provider} .*(missing|not part).*install.*cpu"):
        OnnxDenoiser(make_bundle(), SHAPE, provider=provider)
    said = capfd.readouterr()
    assert said.out == said.err == ""


@pytest.mark.skipif(providers.cuda_device_name() is not None, reason="this machine has a GPU")
def test_auto_takes_the_cpu_in_silence_where_there_is_no_gpu(make_bundle, capfd):
    with OnnxDenoiser(make_bundle(), SHAPE) as denoiser:
        assert denoiser.provider == "CPUExecutionProvider"
    said = capfd.readouterr()
    assert said.out == said.err == ""


def test_the_working_provider_is_what_a_session_says():
    provider, remark = providers.working_provider()
    assert provider.endswith("ExecutionProvider")
    assert (provider == "CPUExecutionProvider") or not remark


def test_a_session_that_falls_back_in_silence_is_an_error(make_bundle, monkeypatch):
    """ONNX Runtime gives a CPU session where CUDA fails to load: the session is what counts."""
    import onnxruntime as ort

    monkeypatch.setattr(providers, "require_libraries", lambda provider: None)
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has no CUDA provider to fall back from")
    if providers.cuda_device_name() is not None:
        pytest.skip("this machine has a GPU")
    with pytest.raises(ProviderError, match=r"would run on CPUExecutionProvider.*pip install"):
        providers.open_session(make_bundle() / "model.onnx", provider="cuda")


def test_a_core_is_left_to_camera_and_gui():
    assert 1 <= providers.cores_beside_camera() <= providers.all_cores()
    if providers.all_cores() > 1:
        assert providers.cores_beside_camera() == providers.all_cores() - 1


def test_a_failing_run_is_one_line(make_bundle, monkeypatch):
    with OnnxDenoiser(make_bundle(), SHAPE, provider="cpu") as denoiser:
        denoiser._ready.binding.clear_binding_inputs()
        with pytest.raises(InferenceError, match="running the model on") as caught:
            denoiser.denoise(observations(), outputs())
    assert "\n" not in str(caught.value)


class StandIn:
    """In the place of a GPU's streams: notes whether what computes in them is gone before them."""

    compute = 7

    def __init__(self):
        self.sessions, self.left = [], None

    def close(self):
        self.left = [session() for session in self.sessions if session() is not None]


@pytest.mark.parametrize("failing", ["_buffers", "bind", "bind_maps"])
def test_streams_go_after_the_session_that_computes_in_them(make_bundle, monkeypatch, failing):
    streams, opened = StandIn(), session_opening.open_session

    def open_session(*arguments, **options):
        running = opened(*arguments, **options | {"options": {}})
        streams.sessions.append(weakref.ref(running.session))
        return running

    def fail(*_):
        raise InferenceError("no memory is left")

    monkeypatch.setattr(session_opening, "open_session", open_session)
    monkeypatch.setattr(session_opening.SessionOpening, "_streams", lambda self: streams)
    if failing == "_buffers":
        monkeypatch.setattr(session_opening.SessionOpening, failing, fail)
    else:
        buffers = HostBuffers((1, 1, *SHAPE), np.dtype(np.uint16))
        monkeypatch.setattr(buffers, failing, fail)
        monkeypatch.setattr(session_opening.SessionOpening, "_buffers", lambda *_: buffers)
    maps = np.zeros((1, 3, *SHAPE), np.float32)
    with pytest.raises(InferenceError, match="no memory") as caught:
        OnnxDenoiser(make_bundle(), SHAPE, provider="cpu", threads=1, pixel_maps=maps)
    assert caught.value.__traceback__ is not None
    assert len(streams.sessions) == 1
    assert streams.left == []


def test_it_runs_without_torch(make_bundle):
    script = (
        "import sys, numpy as np\n"
        "from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser\n"
        f"d = OnnxDenoiser({str(make_bundle())!r}, (16, 16), provider='cpu')\n"
        "d.denoise(np.zeros((1, 16, 16), np.uint16), np.empty((2, 16, 16), np.float32))\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
