"""Judges one frame after the other, and remembers what the last ones said.

Owns the memory over frames and the verdict that comes of it. One `FrameJudge` belongs to one
channel of one place; it is used by one thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..runtime.camera_pixels import CameraPixels
from .evidence import Evidence
from .local_evidence import MOST_PLACES, Place, Standing, places_beyond
from .noise_variance import NoiseVariance
from .null import Null, TrustReference, read_reference
from .residuals import Image
from .training_domain import Features
from .verdict import Deviations, Finding, findings, summary

ALIKE = CameraPixels()
MOST_TOLD = 6
LEAST_TOLD_SHARE = 0.5
"""Of the pixels, that have to say anything before a frame in which nothing was found is good."""
NOTHING_TOLD = (
    "Most pixels are saturated, or all hold one value: whether the picture is right is not known; "
    "check light and exposure."
)
UNKNOWN = {"word": "unknown", "cause": None, "sentence": NOTHING_TOLD}
FEATURES_EVERY = 4
"""Frames: a specimen or its focus does not change from one to the next."""
FIGURE_MEMORY = 0.7
"""What figures averaged over the last frames keep of themselves: about six frames."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found in a frame and those before it.

    Attributes
    ----------
    findings
        What is not as it should be, the cause first; empty if all is well.
    places
        Where something was lost or invented, the strongest first.
    figures
        Figures of the whole frame, averaged over the last ones, by name.
    features
        What the frame looks like, by name.
    score
        The strongest evidence that something is wrong, 1 at its limit.
    known
        Whether the bundle holds a record of its training; without one only the grossest is seen.
    told_share
        Of the pixels, that say anything: saturated ones do not.
    """

    findings: tuple[Finding, ...]
    places: tuple[Place, ...]
    figures: dict[str, float]
    features: dict[str, float]
    known: bool
    score: float
    told_share: float = 1.0

    @property
    def good(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    @property
    def tells_nothing(self) -> bool:
        """Whether nothing was found because most pixels say nothing."""
        return self.good and self.told_share < LEAST_TOLD_SHARE

    def result(self) -> dict[str, Any]:
        """Return it as reports and the preview take it."""
        return {
            "verdict_of_places": UNKNOWN if self.tells_nothing else summary(self.findings),
            "findings": [finding.result() for finding in self.findings[:MOST_TOLD]],
            "places": [place.result() for place in self.places[:MOST_PLACES]],
            "places_lost": sum(place.strength > 0 for place in self.places),
            "places_invented": sum(place.strength < 0 for place in self.places),
            "training_record": self.known,
            "frame_figures": {name: round(value, 5) for name, value in self.figures.items()},
        }


class FrameJudge:
    """Judges the frames of one model.

    Parameters
    ----------
    noise
        Of the camera.
    reference
        The bundle's record of its training; None for bundles without.
    saturation_adu
        Where the camera clips.
    """

    def __init__(
        self,
        noise: NoiseVariance,
        reference: TrustReference | None,
        *,
        saturation_adu: float = np.inf,
    ) -> None:
        self._noise = noise
        self._null = Null(reference)
        self._floor_adu = 0.0 if reference is None else reference.floor_adu
        self._saturation_adu = saturation_adu
        self._place: Hashable = None
        self._standing = Standing()
        self._figures: dict[str, float] = {}
        self._features: Features = {}
        self._weights: dict[str, tuple[float, float]] = {}

    @classmethod
    def of_bundle(
        cls, bundle: Bundle, noise: NoiseVariance, *, saturation_adu: float = np.inf
    ) -> FrameJudge:
        """Return the judge of a bundle's frames."""
        path = bundle.trust_reference_path
        reference = None if path is None else read_reference(path)
        return cls(noise, reference, saturation_adu=saturation_adu)

    def add(
        self,
        raw: NDArray[Any],
        estimate: NDArray[np.float32],
        uncertainty: NDArray[np.float32],
        *,
        pixels: CameraPixels = ALIKE,
        place: Hashable = None,
    ) -> Judgement:
        """Judge a frame.

        Parameters
        ----------
        raw, estimate, uncertainty
            (Y, X), ADU; none is changed.
        pixels
            What the model knows of the camera's pixels.
        place
            What names the place that the camera looks at: where it is another one than before,
            nothing is added up.
        """
        if place != self._place:
            self._place, self._standing = place, Standing()
            self._figures, self._features, self._weights = {}, {}, {}
        frame = Evidence.measure(
            raw,
            estimate,
            uncertainty,
            self._noise,
            floor_adu=self._floor_adu,
            saturation_adu=self._saturation_adu,
            pixels=pixels,
            with_features=self._standing.frames % FEATURES_EVERY == 0,
        )
        self._features = frame.features or self._features
        self._average(frame)
        maps = self._null.normalised(frame)
        # Noise stronger than calibrated makes every place stand out, and says nothing of places.
        too_strong = max(0.0, *(self._excess(name) for name in ("noise_dark", "noise_bright")))
        scale = np.float32(np.exp(-too_strong / 2))
        maps = [image * scale for image in maps] if too_strong else maps
        features = {name: float(value.mean()) for name, value in self._features.items()}
        places, strongest = self._places(maps, frame.pixels)
        deviations = Deviations.of(
            self._figures,
            features,
            self._null,
            pixels=frame.pixels,
            tiles=max((value.size for value in self._features.values()), default=0),
            averaged=self._averaged,
        )
        found = findings(deviations, self._figures, features, places, self._null)
        return Judgement(
            findings=tuple(found),
            places=tuple(places),
            figures=dict(self._figures),
            features=features,
            known=self._null.known,
            score=max(strongest, deviations.largest),
            told_share=frame.told_share,
        )

    def _average(self, frame: Evidence) -> None:
        """Take the figures of a frame; one that it cannot tell is no longer known."""
        figures, weights = {}, {}
        for name, value in frame.figures.items():
            total, squares = self._weights.get(name, (0.0, 0.0))
            total, squares = FIGURE_MEMORY * total + 1, FIGURE_MEMORY**2 * squares + 1
            before = self._figures.get(name, value)
            figures[name], weights[name] = before + (value - before) / total, (total, squares)
        self._figures, self._weights = figures, weights

    @property
    def _averaged(self) -> dict[str, float]:
        """Of how many frames each figure is the average."""
        return {name: total**2 / squares for name, (total, squares) in self._weights.items()}

    def _excess(self, name: str) -> float:
        limits = self._null.figure_limits(name, 1 << 30)
        value = self._figures.get(name)
        if limits is None or value is None:
            return 0.0
        return value - sum(limits) / 2 if value > limits[1] else 0.0

    def _places(self, maps: Sequence[Image], pixels: int) -> tuple[list[Place], float]:
        """Return the places that stand out, and the strongest of all in units of its limit."""
        if not maps:
            return [], 0.0
        sums = self._standing.add(maps)
        found: list[Place] = []
        strongest = 0.0
        for lost, sign in ((True, 1), (False, -1)):
            now = self._null.place_limits(pixels, lost=lost)
            together = self._null.place_limits(pixels, lost=lost, standing=self._standing)
            beyond = []
            for images, limits in ((maps, now), (sums, together)):
                most = [float(image.max() if lost else -image.min()) for image in images]
                share = max(m / limit for m, limit in zip(most, limits, strict=False))
                strongest = max(strongest, share)
                beyond.append(places_beyond(images, limits, sign=sign) if share > 1 else [])
            found += _merged(*beyond)
        return sorted(found, key=lambda place: -abs(place.strength)), strongest


def _merged(first: Sequence[Place], second: Sequence[Place]) -> list[Place]:
    """Return the places of both, those of the second only where the first has none near."""
    return [
        *first,
        *(
            place
            for place in second
            if all(
                abs(place.y - other.y) + abs(place.x - other.x) > place.radius_px + other.radius_px
                for other in first
            )
        ),
    ]


def judged(judgements: Sequence[Judgement]) -> dict[str, Any]:
    """Return the verdict on several frames: the word of most, and the cause found most often."""
    off = [one for one in judgements if not one.good]
    unknown = sum(one.tells_nothing for one in judgements)
    causes = Counter(one.findings[0].cause for one in off)
    most = causes.most_common(1)[0][0] if causes else None
    typical = next((one for one in off if one.findings[0].cause == most), None)
    word, sentence = "good", None if typical is None else typical.findings[0].sentence
    if typical is not None and len(off) * 2 > len(judgements):
        word = summary(typical.findings)["word"]
    elif unknown * 2 > len(judgements):
        word, sentence = "unknown", NOTHING_TOLD
    return {
        "word": word,
        "cause": most,
        "sentence": sentence,
        "frames": len(judgements),
        "frames_green": len(judgements) - len(off) - unknown,
        "frames_unknown": unknown,
        "causes": dict(causes.most_common()),
        "places_lost": sum(place.strength > 0 for one in judgements for place in one.places),
        "places_invented": sum(place.strength < 0 for one in judgements for place in one.places),
        "training_record": any(one.known for one in judgements),
    }
