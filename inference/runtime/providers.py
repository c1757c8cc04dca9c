"""Which processor runs the model, and proof that it does.

Owns the choice of an ONNX Runtime execution provider, the options of its session, the number of
threads, and the error that names a missing library with the line that installs it. Does not know
what the model computes.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import io
import logging
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import psutil

from ..errors import ProviderError, unusable_model

logger = logging.getLogger(__name__)

Provider = Literal["auto", "cpu", "cuda", "tensorrt", "directml"]

_ORT_NAMES: Mapping[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "directml": "DmlExecutionProvider",
}
_OPTION_NAMES = {ort_name: option for option, ort_name in _ORT_NAMES.items()}

_INSTALL: Mapping[str, str] = {
    "cuda": 'pip install "quietscope[gpu]"',
    "tensorrt": 'pip install "quietscope[gpu]" tensorrt-cu13',
    "directml": "pip uninstall onnxruntime-gpu && pip install onnxruntime-directml",
}
_DRIVER = "install the NVIDIA driver from https://www.nvidia.com/drivers"

_THREADS: Mapping[str, str] = {
    # Threads wait for each other within a run without going to sleep (a small frame takes half
    # the time), and sleep between runs: the camera gets the cores.
    "session.intra_op.allow_spinning": "1",
    "session.force_spinning_stop": "1",
    # 1×1 convolutions of many channels in passes that stay in the first cache.
    "mlas.nchwc_pointwise_conv_max_input_channel_batch": "32",
}

QUIET, USUAL = 4, 2
"""Severities of ONNX Runtime's own log: fatal only, and its default (warnings)."""


@dataclass(frozen=True, slots=True, eq=False)
class RunningSession:
    """A session and what it says about itself.

    Attributes
    ----------
    session
        The `onnxruntime.InferenceSession`.
    provider
        The provider that the session itself reports, by ONNX Runtime's name.
    device
        The processor, for a person.
    remark
        Why a GPU that is there is not used; empty otherwise.
    """

    session: Any
    provider: str
    device: str
    remark: str = ""


def require_provider_name(provider: str) -> None:
    """Raise ProviderError unless `provider` is one of the names that `--provider` takes."""
    if provider not in get_args(Provider):
        raise ProviderError(
            f"provider is {provider!r}, expected one of {', '.join(get_args(Provider))}"
        )


def option_name(ort_name: str) -> Provider:
    """Return the value of `--provider` that stands for a provider of ONNX Runtime."""
    return _OPTION_NAMES[ort_name]


def all_cores() -> int:
    """Return the physical cores that this process may use."""
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return max(1, min(physical, len(os.sched_getaffinity(0))))
    return max(1, physical)


def cores_beside_camera() -> int:
    """Return the physical cores less the one that camera, hook and GUI keep for themselves."""
    return max(1, all_cores() - 1)


def open_session(
    model: Path | bytes,
    *,
    provider: Provider = "auto",
    free_dimensions: Mapping[str, int] | None = None,
    threads: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> RunningSession:
    """Open a session on the provider that was asked for, or raise.

    Parameters
    ----------
    model
        The ONNX file, or its bytes.
    provider
        `auto` takes CUDA where it works and the CPU elsewhere.
    free_dimensions
        Symbolic dimension to its size; fixed sizes let the runtime plan all memory ahead.
    threads
        Of the CPU provider; None leaves one core to camera and GUI.
    options
        Further options of the GPU provider.

    Raises
    ------
    ProviderError
        If that provider cannot run here: names the missing library and how to install it.
    BundleError
        If ONNX Runtime cannot load the model at all.
    """
    require_provider_name(provider)
    if provider == "auto":
        return _open_best(model, free_dimensions or {}, threads, options)
    if provider != "cpu":
        require_libraries(provider)
    return _open(model, provider, free_dimensions or {}, threads, options)


def _open_best(
    model: Path | bytes,
    free_dimensions: Mapping[str, int],
    threads: int | None,
    options: Mapping[str, Any] | None,
) -> RunningSession:
    gpu, remark = cuda_device_name(), ""
    if gpu is not None:
        try:
            require_libraries("cuda")
            return _open(model, "cuda", free_dimensions, threads, options)
        except ProviderError as error:
            remark = f"the {gpu} is not used: {error}"
            logger.warning(remark)
    return replace(_open(model, "cpu", free_dimensions, threads, None), remark=remark)


def _open(
    model: Path | bytes,
    provider: Provider,
    free_dimensions: Mapping[str, int],
    threads: int | None,
    options: Mapping[str, Any] | None,
) -> RunningSession:
    import onnxruntime as ort

    source = model if isinstance(model, bytes) else str(model)
    settings = _session_options(provider, free_dimensions, threads)
    chain: list[Any] = [(_ORT_NAMES[provider], dict(options or {}))]
    if provider == "tensorrt":
        chain.append((_ORT_NAMES["cuda"], {}))
    if provider != "cpu":
        chain.append(_ORT_NAMES["cpu"])
    try:
        with _quiet(provider != "cpu"):
            session = ort.InferenceSession(source, settings, providers=chain, enable_fallback=0)
    except Exception as error:  # ONNX Runtime raises its own types, one per status code
        raise _refusal(model, provider, error) from error
    running = session.get_providers()[0]
    if running != _ORT_NAMES[provider]:
        option = _OPTION_NAMES.get(running, "cpu")
        raise ProviderError(
            f"provider {provider} was asked for but ONNX Runtime would run on {running}: "
            f"{_remedy(provider)}, or pass --provider {option}"
        )
    device = cpu_name(settings.intra_op_num_threads) if provider == "cpu" else cuda_device_name()
    return RunningSession(session, running, device or running)


def _refusal(model: Path | bytes, provider: str, error: Exception) -> Exception:
    reason = str(error).strip().splitlines()[0]
    if provider != "cpu":
        return ProviderError(
            f"provider {provider} cannot run this model here ({reason}); "
            f"{_remedy(provider)}, or pass --provider cpu"
        )
    return unusable_model("the model" if isinstance(model, bytes) else model, error)


def _session_options(
    provider: str, free_dimensions: Mapping[str, int], threads: int | None
) -> Any:
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    settings.intra_op_num_threads = threads or cores_beside_camera()
    settings.inter_op_num_threads = 1
    for key, value in _THREADS.items():
        settings.add_session_config_entry(key, value)
    if provider == "directml":
        settings.enable_mem_pattern = False
    for name, size in free_dimensions.items():
        settings.add_free_dimension_override_by_name(name, size)
    return settings


@contextlib.contextmanager
def _quiet(active: bool) -> Iterator[None]:
    """Keep ONNX Runtime from writing to the terminal: what matters becomes an exception."""
    if not active:
        yield
        return
    import onnxruntime as ort

    ort.set_default_logger_severity(QUIET)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        ort.set_default_logger_severity(USUAL)


@cache
def working_provider() -> tuple[str, str]:
    """Return the provider that `auto` takes on this machine, and a remark if a GPU lies idle.

    Asks a session on a graph of one node, so the answer is what really runs.
    """
    running = open_session(_identity(), provider="auto", threads=1)
    return running.provider, running.remark


def _identity() -> bytes:
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", [x], [y])
    opset = helper.make_opsetid("", 18)
    return bytes(helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString())


# -------------------------------------------------------------------------------- options


def cuda_options() -> list[dict[str, str]]:
    """Return the options to try on CUDA, the fastest first."""
    exhaustive = {"cudnn_conv_algo_search": "EXHAUSTIVE", "cudnn_conv_use_max_workspace": "1"}
    # A captured graph replays all kernels with one launch; some graphs cannot be captured.
    return [{**exhaustive, "enable_cuda_graph": "1"}, exhaustive]


# ------------------------------------------------------------------------------ libraries


def require_libraries(provider: Provider) -> None:
    """Raise ProviderError if `provider` cannot be loaded; name what is missing.

    Loads the libraries that are installed as Python packages on the way, so that the session
    finds them.
    """
    import onnxruntime as ort

    if _ORT_NAMES[provider] not in ort.get_available_providers():
        raise ProviderError(
            f"provider {provider} is not part of the installed {ort.package_name} "
            f"{ort.__version__}: {_remedy(provider)}, or pass --provider cpu"
        )
    if provider == "directml":
        return
    _preload(provider)
    missing = next((name for name in _libraries(provider) if not _loads(name)), None)
    if missing is not None:
        remedy = _DRIVER if missing == cuda_driver() else _remedy(provider)
        raise ProviderError(
            f"provider {provider} cannot run here: {missing} is missing; {remedy}, "
            "or pass --provider cpu"
        )


def _remedy(provider: str) -> str:
    if provider == "cpu":
        return 'install it with `pip install "onnxruntime>=1.24"`'
    return f"install it with `{_INSTALL[provider]}`"


@cache
def _preload(provider: str) -> None:
    import onnxruntime as ort

    with _quiet(True), contextlib.suppress(Exception):
        ort.preload_dlls()
    if provider == "tensorrt" and importlib.util.find_spec("tensorrt_libs") is not None:
        importlib.import_module("tensorrt_libs")


def _libraries(provider: str) -> list[str]:
    import onnxruntime as ort

    major = str(getattr(ort, "cuda_version", "") or "13").split(".")[0]
    if sys.platform == "win32":
        cuda = [f"cudart64_{major}.dll", f"cublasLt64_{major}.dll", f"cublas64_{major}.dll"]
        names = [cuda_driver(), *cuda, "cudnn64_9.dll"]
        return names if provider == "cuda" else [*names, "nvinfer_10.dll", "nvonnxparser_10.dll"]
    cuda = [f"lib{name}.so.{major}" for name in ("cudart", "cublasLt", "cublas")]
    names = [cuda_driver(), *cuda, "libcurand.so.10", "libcudnn.so.9"]
    return names if provider == "cuda" else [*names, "libnvinfer.so.10", "libnvonnxparser.so.10"]


def cuda_driver() -> str:
    """Return the file name of the NVIDIA driver's library."""
    return "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


@cache
def cuda_device_name() -> str | None:
    """Return the name of the first NVIDIA GPU, None where driver or GPU is absent.

    Asks the driver itself, which is there or not whatever Python packages are installed.
    """
    try:
        driver = ctypes.CDLL(cuda_driver())
    except OSError:
        return None
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    if (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDeviceGetName(name, len(name), device)
    ):
        return None
    return name.value.decode("utf-8", "replace")


def cpu_name(threads: int) -> str:
    """Return what a person calls this processor, with the threads in use."""
    name = platform.processor() or platform.machine()
    description = Path("/proc/cpuinfo")
    if description.is_file():
        for line in description.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return f"{name}, {threads} of {all_cores()} cores"
