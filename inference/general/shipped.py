"""The files of the general model that ship with the program, and the proof that they are whole.

Owns reading them and joining weights and graph. Each form of input (with or without preceding
frames, with or without pixel maps) has a graph without weights; the weights lie beside, once, in
half precision. What a camera makes of it is decided in `for_camera`.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from ...storage.bounded_text import read_text
from ..bundle import Sha256
from ..errors import BundleError

FOLDER = Path(__file__).parent / "shipped"
MANIFEST = "general.json"
WEIGHTS = "weights.npz"
GRAPH = "frames-{context}{maps}.onnx"
CAMERA = "camera"
"""Input of the graphs, (3,): offset in ADU, gain in ADU/e⁻ and read variance in e⁻²."""
CONTEXTS = (0, 4)
"""Preceding frames that a graph takes. The one of four serves fewer as well: those are zeros."""
PART = "{name}@{first}:{end}"
"""A weight of a graph that is a part of the inputs of one of the network."""
_LARGEST_BYTES = 4 * 2**20


class ShippedManifest(BaseModel):
    """How the general model came to be, and the SHA-256 of its files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    steps: int
    seconds: float
    seed: int
    parameters: int
    recipe: str
    parity_max_relative_error: float | None = None
    """Of the graphs against PyTorch, when they were written."""
    sha256: dict[str, Sha256]

    @property
    def identity(self) -> str:
        """The SHA-256 of the weights: which general model it is."""
        return self.sha256[WEIGHTS]


def read_shipped(folder: Path = FOLDER) -> ShippedManifest:
    """Read what the general model says of itself.

    Raises
    ------
    BundleError
        If it is missing or unusable.
    """
    try:
        manifest = ShippedManifest.model_validate_json(read_text(folder / MANIFEST))
    except (OSError, ValidationError, ValueError) as error:
        raise _broken(folder / MANIFEST, f"cannot be read ({type(error).__name__})") from error
    if WEIGHTS not in manifest.sha256:
        raise _broken(folder / MANIFEST, f"lists no {WEIGHTS}")
    return manifest


def general_in_words() -> str:
    """Return which general model it is, for records of what began with it.

    Raises
    ------
    BundleError
        As `read_shipped`.
    """
    return f"the general model {read_shipped().identity}"


def shipped_graph(context_frames: int, *, with_maps: bool, folder: Path = FOLDER) -> Any:
    """Return the graph with its weights, an onnx.ModelProto that still takes the camera.

    Parameters
    ----------
    context_frames
        One of CONTEXTS.
    with_maps
        Whether it takes pixel maps.
    folder
        Where the files lie.

    Raises
    ------
    BundleError
        If a file is missing, damaged or another one.
    """
    import onnx

    manifest = read_shipped(folder)
    graph = GRAPH.format(context=context_frames, maps="-maps" * with_maps)
    model = onnx.load_model_from_string(_content(folder, manifest, graph))
    weights = shipped_weights(folder)
    for name in sorted({name for node in model.graph.node for name in node.input}):
        whole, _, part = name.partition("@")
        if (values := weights.get(whole)) is not None:
            if part:
                first, end = map(int, part.split(":"))
                values = np.ascontiguousarray(values[:, first:end])
            model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return model


def shipped_weights(folder: Path = FOLDER) -> dict[str, NDArray[np.float32]]:
    """Return the weights by the names that they have in the network.

    Raises
    ------
    BundleError
        If their file is missing, damaged or another one.
    """
    content = io.BytesIO(_content(folder, read_shipped(folder), WEIGHTS))
    with np.load(content, allow_pickle=False) as halves:
        return {name: halves[name].astype(np.float32) for name in halves.files}


def _content(folder: Path, manifest: ShippedManifest, name: str) -> bytes:
    path = folder / name
    if name not in manifest.sha256:
        raise _broken(folder / MANIFEST, f"lists no {name}")
    if not path.is_file():
        raise _broken(path, "is missing")
    with path.open("rb") as file:
        content = file.read(_LARGEST_BYTES)
    if hashlib.sha256(content).hexdigest() != manifest.sha256[name]:
        raise _broken(path, "is damaged or another file (its SHA-256 differs from the manifest)")
    return content


def _broken(path: Path, what: str) -> BundleError:
    return BundleError(
        f"{path}: {what}; it is part of the general model, which ships with quietscope: install "
        "quietscope anew, or train a model of your own"
    )
