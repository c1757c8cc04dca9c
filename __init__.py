"""quietscope: live denoising for Micro-Manager.

From Python, with arrays of numpy, zarr, dask or xarray (see `docs/python.md`)::

    import quietscope as qs

    camera = qs.calibrate([dim, bright], dark=dark)
    model = qs.train(recording, "models/gfp", noise_model=camera, minutes=10)
    clean = model.denoise(recording)
    smooth = qs.denoise(recording, method="total-variation", noise_model=camera)

Nothing is loaded before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .arrays.functions import calibrate, compare, denoise, evaluate, train
    from .arrays.model import Model, load
    from .storage.open_stack import open_stack

__all__ = [
    "Model",
    "__version__",
    "calibrate",
    "compare",
    "denoise",
    "evaluate",
    "load",
    "open_stack",
    "train",
]

_HOME = {
    "calibrate": "arrays.functions",
    "compare": "arrays.functions",
    "denoise": "arrays.functions",
    "evaluate": "arrays.functions",
    "train": "arrays.functions",
    "load": "arrays.model",
    "Model": "arrays.model",
    "open_stack": "storage.open_stack",
}
"""Where each name is defined: it is imported when it is first asked for."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
