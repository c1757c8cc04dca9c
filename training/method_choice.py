"""Which method suits the noise of the recordings, where nobody chose one.

Owns that choice and its words. What was found is `calibration.noise_correlation`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..calibration.noise_correlation import NoiseCorrelation
from ..inference.general.shipped import CONTEXTS
from .options import AUTO, TrainingOptions

INDEPENDENT = "lattice"
"""Blind to the pixel alone: where the noise of pixels is independent."""
REFINED = "refined"
"""The general model, which goes on learning, for the same noise; it is asked for by name.
`benchmarks/training_refined.py` compares."""
FOR_INDEPENDENT = (INDEPENDENT, REFINED)
SHARED = "r2r"
"""Blind to nothing: where neighbours share their noise. Hiding all that do leaves too little to
predict from; `benchmarks/training_correlated.py` compares."""


def with_method(
    options: TrainingOptions,
    found: NoiseCorrelation,
    remark: Callable[[str], None],
    *,
    agreed: Callable[[float], float] = float,
) -> TrainingOptions:
    """Return options with the method that suits the noise, if it was left open; say which.

    `agreed` returns what the first of several processes found: each has frames of its own, and all
    must train one network.
    """
    if options.algorithm != AUTO:
        return options
    if not agreed(found.is_correlated):
        remark(f"{_unshared(found)}: {INDEPENDENT} is trained; --algorithm chooses otherwise")
        return replace(options, algorithm=INDEPENDENT)
    remark(
        f"{found.described()}: {SHARED} is trained, which draws noise like it, and not "
        f"{INDEPENDENT}, which would take it for signal; --algorithm chooses otherwise"
    )
    return replace(options, algorithm=SHARED)


def unknown_to_general(options: TrainingOptions) -> str | None:
    """Return what of the options the general model does not do; None if it does it all."""
    most = CONTEXTS[-1]
    if options.context_frames > most:
        return f"knows {most} preceding frames, not {options.context_frames} (--context)"
    if options.planes:
        return "knows no planes of a z-stack (--planes)"
    if options.other_channels:
        return "knows no other channels (--other-channel)"
    if options.preset != "live":
        return f"has one size, not the preset {options.preset!r} (--preset)"
    return None


def judged(algorithm: str, found: NoiseCorrelation, *, blind: bool = True) -> tuple[bool, str]:
    """Return whether a method's result is clean of the noise that was found, and a sentence.

    `blind` says whether it learns from pixels of its own frames that it does not see, and not from
    other frames.
    """
    if not found.is_correlated:
        clean, sentence = True, _unshared(found)
    elif algorithm == SHARED:
        clean, sentence = True, f"{found.described()}: {SHARED} was taught with noise like it"
    elif not blind:
        clean = True
        sentence = f"{found.described()}: what {algorithm} learns from does not share it"
    elif algorithm == "structn2v" and found.is_strong():
        clean = True
        sentence = f"{found.described()}: structn2v hides together what shares it"
    else:
        clean = False
        sentence = (
            f"{found.described()}, which {algorithm} takes for signal: the result is not clean; "
            f"train with --algorithm {SHARED}"
        )
    if found.duplicates:
        sentence += (
            f"; of the pairs of successive frames that were compared {found.duplicates} "
            f"{'is' if found.duplicates == 1 else 'are'} the same frame twice"
        )
    return clean, sentence


def _unshared(found: NoiseCorrelation) -> str:
    """Return in words what was found where pixels are not seen to share noise."""
    if found.origin == "no noise":
        return (
            "no noise is seen beside what moves in these frames, and whether neighbouring pixels "
            "share any is not known"
        )
    sentence = "the noise of neighbouring pixels is independent"
    return sentence + (", as far as single frames tell" if found.origin == "single frames" else "")
