"""TensorRT engines: found again where they fit, and never compiled while frames come."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from quietscope.inference.errors import ProviderError
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.inference.runtime.providers import cuda_device_name
from quietscope.inference.runtime.tensorrt_engines import Engine, machine, runs_instead

MACHINE = {"gpu": "NVIDIA X", "driver": "13000", "tensorrt": "101400", "onnxruntime": "1.31.1"}


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "cache with spaces"))


@pytest.fixture
def engine():
    return Engine("ab" * 32, (2048, 1024), "fp16", MACHINE)


def test_an_engine_is_found_again_by_what_it_depends_on(engine):
    assert not engine.is_built
    engine.options()
    engine.mark_built(93.0)
    assert Engine("ab" * 32, (2048, 1024), "fp16", dict(MACHINE)).is_built


@pytest.mark.parametrize(
    "change",
    [
        {"model_sha256": "cd" * 32},
        {"frame_shape": (1024, 2048)},
        {"precision": "fp32"},
        *({"machine": MACHINE | {name: "another"}} for name in MACHINE),
    ],
)
def test_another_model_shape_precision_or_machine_needs_another_engine(engine, change):
    engine.options()
    engine.mark_built(93.0)
    other = replace(engine, **change)
    assert other.folder != engine.folder
    assert not other.is_built


def test_a_compilation_that_was_cut_short_is_no_engine(engine):
    engine.options()
    (engine.folder / "TensorrtExecutionProvider_TRTKernel_0.engine").write_bytes(b"half")
    assert not engine.is_built


def test_sessions_look_where_the_engine_is_kept(engine):
    options = engine.options()
    assert options["trt_engine_cache_path"] == str(engine.folder)
    assert engine.folder.is_dir()
    assert options["trt_fp16_enable"] == "1"
    assert replace(engine, precision="fp32").options()["trt_fp16_enable"] == "0"


@pytest.mark.parametrize(
    ("provider", "built", "may_compile", "expected", "said"),
    [
        ("tensorrt", True, False, "tensorrt", ""),
        ("tensorrt", True, True, "tensorrt", ""),
        (
            "tensorrt",
            False,
            True,
            "tensorrt",
            "compiling a TensorRT engine for frames of",
        ),
        ("tensorrt", False, False, "cuda", "no compiling while frames come: CUDA runs"),
        ("cuda", False, False, "cuda", ""),
        ("cpu", False, True, "cpu", ""),
    ],
)
def test_nothing_is_compiled_while_frames_come(
    engine, caplog, provider, built, may_compile, expected, said
):
    if built:
        engine.options()
        engine.mark_built(1.0)
    with caplog.at_level(logging.INFO):
        assert runs_instead(provider, [engine], may_compile=may_compile) == expected
    assert (said in caplog.text) if said else not caplog.text


def test_every_engine_of_a_session_must_be_there(engine):
    """The golden output is checked at a shape of its own."""
    engine.options()
    engine.mark_built(1.0)
    golden = replace(engine, frame_shape=(96, 96))
    assert runs_instead("tensorrt", [engine, golden], may_compile=False) == "cuda"


def test_the_machine_is_described_without_a_gpu_as_well():
    assert set(machine()) == set(MACHINE)
    assert all(isinstance(value, str) and value for value in machine().values())


@pytest.mark.skipif(cuda_device_name() is not None, reason="this machine has a GPU")
@pytest.mark.parametrize(("may_compile", "tried"), [(True, "tensorrt"), (False, "cuda")])
def test_a_denoiser_tries_what_was_decided(make_bundle, may_compile, tried):
    with pytest.raises(ProviderError, match=f"provider {tried} "):
        OnnxDenoiser(make_bundle(), (32, 32), provider="tensorrt", may_compile=may_compile)


@pytest.mark.gpu
def test_a_second_session_does_not_compile(make_bundle, caplog):
    pytest.importorskip("tensorrt_libs", reason="TensorRT is not installed")
    bundle = make_bundle()
    for _ in range(2):
        caplog.clear()
        OnnxDenoiser(bundle, (64, 64), provider="tensorrt").close()
    assert "compiling" not in caplog.text
    within_a_run = OnnxDenoiser(bundle, (64, 64), provider="tensorrt", may_compile=False)
    assert within_a_run.provider == "TensorrtExecutionProvider"
    within_a_run.close()


@pytest.mark.gpu
def test_a_new_shape_within_a_run_is_cuda_s(make_bundle):
    denoiser = OnnxDenoiser(make_bundle(), (72, 88), provider="tensorrt", may_compile=False)
    assert denoiser.provider == "CUDAExecutionProvider"
    assert denoiser.missing_engines
    denoiser.close()
