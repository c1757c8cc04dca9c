"""Where training begins: `--from general`, or `--from` the bundle of an earlier training.

Owns which weights those are, and that the network which is to be trained is theirs. The general
model's own are taken by `methods.refined`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import one_line
from ..inference.bundle import Bundle, open_bundle
from ..inference.errors import BundleError
from ..inference.general.for_camera import is_general
from .checkpoint import load_weights
from .errors import TrainingError
from .method_choice import REFINED
from .options import AUTO, TrainingOptions

GENERAL = "general"
_OF_THE_NETWORK = ("preset", "context_frames", "planes", "other_channels")
_OF_ITS_METHOD = ("samples", "samples_from", "posterior_samples", "loss")


def begun_from(
    named: str, options: TrainingOptions
) -> tuple[TrainingOptions, dict[str, Tensor] | None]:
    """Return the options of a run that begins with a model, and its weights.

    What was left at its default is taken over from the model.

    Parameters
    ----------
    named
        `general`, or a bundle.
    options
        Of the run.

    Returns
    -------
    The options; and weights, None for the general model's.

    Raises
    ------
    TrainingError
        If the model has no weights to begin with, or they are of another network.
    """
    if named == GENERAL:
        return _general(options), None
    try:
        bundle = open_bundle(Path(named))
    except BundleError as error:
        raise TrainingError(f"--from: {one_line(error)}") from error
    if is_general(bundle):
        return _general(options), None
    return _of_bundle(named, bundle, options)


def _general(options: TrainingOptions) -> TrainingOptions:
    if options.algorithm not in (AUTO, REFINED):
        raise TrainingError(
            f"--from {GENERAL}: the general model's network learns by {REFINED}, not by "
            f"{options.algorithm}; leave out --algorithm, or --from"
        )
    return replace(options, algorithm=REFINED)


def _of_bundle(
    named: str, bundle: Bundle, options: TrainingOptions
) -> tuple[TrainingOptions, dict[str, Tensor]]:
    manifest = bundle.manifest
    if bundle.checkpoint_path is None:
        raise TrainingError(
            f"--from {named}: the bundle holds no weights to train on from; name one that "
            f"`quietscope train` wrote, or {GENERAL}"
        )
    if options.algorithm not in (AUTO, manifest.algorithm):
        raise TrainingError(
            f"--from {named}: its network is one of {manifest.algorithm}, not of "
            f"{options.algorithm}; leave out --algorithm, or --from"
        )
    plain = TrainingOptions()
    taken: dict[str, Any] = {name: getattr(manifest, name) for name in _OF_THE_NETWORK}
    recorded = manifest.training.options
    taken |= {name: recorded[name] for name in _OF_ITS_METHOD if name in recorded}
    for name, value in taken.items():
        if getattr(options, name) not in (getattr(plain, name), value):
            raise TrainingError(
                f"--from {named}: {name} of its network is {value}, not {getattr(options, name)}; "
                "leave that option out, or --from"
            )
    _, weights = load_weights(bundle.checkpoint_path)
    begun_with = f"the model {bundle.model_sha256}"
    chosen = replace(options, algorithm=manifest.algorithm, begun_with=begun_with, **taken)
    return chosen, weights
