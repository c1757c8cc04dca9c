"""Compare every method on one recording, from top to bottom.

Owns the order of things: divide, train what must be trained, score, keep each row as it is known,
advise, draw. Training is `training.train`'s business, scoring `score`'s.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ..calibration.bootstrap import bootstrap_noise_model
from ..calibration.gaussian_mixture import GaussianMixtureNoiseModel
from ..errors import QuietscopeError, one_line, require_extra
from ..inference.bundle import Preset, open_bundle
from ..inference.classical.denoiser import ClassicalDenoiser
from ..inference.classical.settled_strength import settle_strength
from ..inference.denoiser import Denoiser, KnowsPixels
from ..inference.evaluation.evaluate import prepared
from ..inference.evaluation.evaluate_method import one_channel
from ..inference.evaluation.references import require_one_truth, require_truth_fits
from ..inference.general.choice import GENERAL, Wanted, one_model
from ..inference.runtime.providers import all_cores, cpu_name
from ..inspection.channel_figures import MUCH_MOVED, channel_figures
from ..storage.atomic_output import require_absent, require_apart, write_json
from ..storage.directory_lock import owned
from ..storage.output_kinds import Kind
from ..storage.stack import Stack
from .advice import Scene, advice
from .contestants import RAW, Contestant, contestants
from .division import Division, divided
from .errors import ComparisonError
from .peak_memory import PeakMemory
from .remarks import remarks_on
from .result import Comparison
from .rows import RESULT, ComparisonFolder, Row
from .score import Measured, Ruler, measured
from .train_contestant import trained_facts

DEFAULT_MINUTES = 5.0
DEFAULT_FRAMES = 5
MOST_SCORED = 8
MOST_COMPARED_FRAMES = 17
"""As many as a network looks at."""
LEAST_SECONDS = 1.0
Remark = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ComparisonOptions:
    """The choices of one comparison.

    Attributes
    ----------
    methods
        Names of filters and algorithms; see `contestants`.
    models
        Bundles that were trained before; `general` is the model that ships.
    frames
        How many frames those see that are given more than one.
    seconds
        Budget of each training.
    preset, seed
        Of each training.
    most_scored
        How many frames are scored at most.
    """

    methods: tuple[str, ...] = ("all",)
    models: tuple[Path, ...] = ()
    frames: int = DEFAULT_FRAMES
    seconds: float = 60 * DEFAULT_MINUTES
    preset: Preset = "live"
    seed: int = 0
    most_scored: int = MOST_SCORED

    def __post_init__(self) -> None:
        """Refuse what would be found out after an hour, method by method."""
        if not 1 <= self.frames <= MOST_COMPARED_FRAMES:
            raise ComparisonError(f"frames is {self.frames}, expected 1 to {MOST_COMPARED_FRAMES}")
        if self.most_scored < 1:
            raise ComparisonError(f"{self.most_scored} frames to score, expected at least 1")
        if not LEAST_SECONDS <= self.seconds < inf:  # not a number is no budget either
            raise ComparisonError(
                f"the budget is {self.seconds / 60:g} minutes for each training, expected at "
                f"least {LEAST_SECONDS / 60:.2g} and an end"
            )
        if self.preset not in get_args(Preset):
            raise ComparisonError(
                f"preset is {self.preset!r}, expected one of {', '.join(get_args(Preset))}"
            )


@dataclass(frozen=True, slots=True)
class ComparisonProgress:
    """How far a comparison is: rows done and in total, who is at work, and the time left."""

    done: int
    total: int
    name: str
    seconds_left: float


def compare(
    stack: Stack,
    out: Path | str,
    options: ComparisonOptions | None = None,
    *,
    truth: Stack | None = None,
    static: bool = False,
    noise_model: GaussianMixtureNoiseModel | None = None,
    channel: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[ComparisonProgress], None] | None = None,
    on_remark: Remark | None = None,
) -> Comparison:
    """Train, score and rank methods on one recording; write `comparison.json` and a page.

    Parameters
    ----------
    stack
        Noisy frames. The last fifth is scored and trained by nobody, unless there are too few.
    out
        A folder for rows, trained models, result and page.
    options
        The choices.
    truth, static
        As of `evaluate`; neither where the truth is not known.
    noise_model
        Of the camera, the same for all; estimated from the recording where not given.
    channel
        Name or number of one of several.
    resume
        Go on with what a killed comparison left: rows that are there stay, an unfinished training
        goes on.
    overwrite
        Replace a comparison that is there.
    on_progress, on_remark
        Called now and then with how far it is, and with what a person should know.

    Raises
    ------
    ComparisonError
        If a name is unknown, or no contestant could be scored.
    OutputError
        If `out` cannot be written.
    """
    began = time.monotonic()
    options, out = options or ComparisonOptions(), Path(out)
    if truth is not None:
        require_one_truth(stack, truth, static=static)
    taking_part = contestants(options.methods, options.models, options.frames)
    if any(one.kind == "trained" for one in taking_part):
        require_extra("train", "comparing methods that are trained")
    models = [path for path in options.models if path != GENERAL]
    require_apart(out, [stack.path, *([truth.path] if truth else []), *models])
    if not resume:
        require_absent(out, overwrite=overwrite, kind=Kind.COMPARISON)
    remark = on_remark or (lambda text: None)
    stack, truth = one_channel(stack, channel), truth and one_channel(truth, channel)
    if truth is not None or static:
        require_truth_fits(stack, truth, static=static)
    with owned(out):
        division = divided(stack, options.most_scored)
        folder = ComparisonFolder(out)
        folder.begin(
            _settings(stack, truth, static, division, options, noise_model),
            resume=resume,
            overwrite=overwrite,
        )
        noise = noise_model or bootstrap_noise_model([division.training], seed=options.seed)
        shown = division.scored[len(division.scored) // 2]
        ruler = Ruler(stack, division.scored, shown, truth, static, noise)
        watch = _Watch(taking_part, options.seconds, on_progress)
        contest = _Contest(ruler, division, options, folder, watch, remark)
        rows = [contest.row(one) for one in taking_part]
        return _concluded(folder, rows, contest, calibrated=noise_model is not None, began=began)


def _settings(
    stack: Stack,
    truth: Stack | None,
    static: bool,
    division: Division,
    options: ComparisonOptions,
    noise_model: GaussianMixtureNoiseModel | None,
) -> dict[str, Any]:
    """Return what rows of one comparison have in common; methods can be added to it."""
    return {
        "stack": str(stack.path),
        "axes": dict(stack.sizes),
        "pixels_sha256": _digest(stack, truth, division.scored),
        "truth": str(truth.path) if truth is not None else "static" if static else None,
        "scored_frames": list(division.scored),
        "minutes_each": options.seconds / 60,
        "preset": options.preset,
        "seed": options.seed,
        "noise_model": None if noise_model is None else _figures_of(noise_model),
    }


def _digest(stack: Stack, truth: Stack | None, scored: Sequence[int]) -> str:
    """Return what tells one recording from another that lies at the same place."""
    digest = hashlib.sha256()
    for index in scored:
        digest.update(np.ascontiguousarray(stack.frame(index)).tobytes())
    if truth is not None:
        for index in truth.present_indices[[0, -1]]:
            digest.update(np.ascontiguousarray(truth.frame(int(index))).tobytes())
    return digest.hexdigest()


def _figures_of(noise_model: GaussianMixtureNoiseModel) -> list[float]:
    """Return what tells one camera's noise from another's."""
    signals = np.linspace(noise_model.signal_adu[0], noise_model.signal_adu[-1], 5)
    law = noise_model.photon_transfer
    variances = noise_model.variance(signals)
    return [float(value) for value in (law.gain_adu_per_e, law.offset_adu, *signals, *variances)]


@dataclass
class _Watch:
    """Knows how long things take, and tells how much time is left."""

    waiting: list[Contestant]
    seconds_each: float
    tell: Callable[[ComparisonProgress], None] | None
    total: int = field(init=False)
    took: list[float] = field(default_factory=list)
    """Of the rows that need no training, seconds each."""

    def __post_init__(self) -> None:
        self.waiting = list(self.waiting)
        self.total = len(self.waiting)

    def at(self, contestant: Contestant, seconds_left: float = 0.0) -> None:
        """Tell who is at work, and how long that one still needs."""
        if self.tell is None:
            return
        quick = sum(self.took) / len(self.took) if self.took else 1.0
        trainings = sum(one.kind == "trained" for one in self.waiting[1:])
        ahead = trainings * (self.seconds_each + quick)
        ahead += (len(self.waiting[1:]) - trainings) * quick
        done = self.total - len(self.waiting)
        self.tell(ComparisonProgress(done, self.total, contestant.name, seconds_left + ahead))

    def finished(self, seconds: float | None) -> None:
        """Count one as done; `seconds` that it took where it needed no training."""
        self.waiting.pop(0)
        if seconds is not None:
            self.took.append(seconds)


@dataclass(frozen=True, slots=True)
class _Contest:
    """Turns contestants into rows, one after the other."""

    ruler: Ruler
    division: Division
    options: ComparisonOptions
    folder: ComparisonFolder
    watch: _Watch
    remark: Remark

    def row(self, contestant: Contestant) -> Row:
        """Return what a contestant is worth, of an earlier run or by scoring it now."""
        kept = self.folder.kept(contestant)
        if kept is not None and self._is_of_this_model(kept):
            self.watch.finished(None)
            return kept
        self.watch.at(contestant, self.options.seconds if contestant.kind == "trained" else 0.0)
        began = time.perf_counter()
        try:
            row, found = self._scored(contestant)
        except QuietscopeError as error:
            row, found = Row(contestant, left_out=one_line(error)), None
            self.remark(f"{contestant.name} is left out: {one_line(error)}")
        self.folder.keep(row, found)
        quick = contestant.kind != "trained" and found is not None
        self.watch.finished(time.perf_counter() - began if quick else None)
        return row

    def _is_of_this_model(self, kept: Row) -> bool:
        """Whether a row of an earlier run is of the very model that would be scored now."""
        if kept.contestant.kind == "filter":
            return True
        try:
            bundle = open_bundle(self._bundle(kept.contestant))
        except QuietscopeError:
            return False
        return bundle.model_sha256 == kept.facts.get("model_sha256")

    def _bundle(self, contestant: Contestant) -> Path:
        """Return where the model of a contestant lies."""
        if contestant.kind == "trained":
            return self.folder.bundle(contestant)
        wanted = Wanted.for_recording(self.ruler.stack, noise_model=self.ruler.noise_model)
        path = Path(contestant.method)
        return one_model(path, wanted)[0] if path == GENERAL else path

    def _scored(self, contestant: Contestant) -> tuple[Row, Measured]:
        with PeakMemory() as training_memory:
            facts = self._trained(contestant)
        with PeakMemory() as memory:
            denoiser, about = self._opened(contestant)
            with closing(denoiser):
                found = measured(self.ruler, denoiser)
        facts |= about | {"peak_rss_mb": memory.mb}
        if contestant.kind == "trained":
            facts["training_peak_rss_mb"] = training_memory.mb
        facts["states_uncertainty"] = bool(found.picture.estimate[1].any())
        facts["uncertainty_coverage"] = found.coverage
        return Row(contestant, found.figures, found.per_frame, facts, found.remarks), found

    def _trained(self, contestant: Contestant) -> dict[str, Any]:
        """Train what must be trained and is not there yet."""
        if contestant.kind != "trained":
            return {}
        return trained_facts(
            contestant,
            self.folder.bundle(contestant),
            self.division.training,
            self.division.scored,
            self.options.seconds,
            preset=self.options.preset,
            seed=self.options.seed,
            noise_model=self.ruler.noise_model,
            truth=self.ruler.truth,
            on_seconds_left=lambda left: self.watch.at(contestant, left),
            on_remark=lambda text: self.remark(f"{contestant.name}: {text}"),
        )

    def _opened(self, contestant: Contestant) -> tuple[Denoiser, dict[str, Any]]:
        stack = self.ruler.stack
        if contestant.kind == "filter":
            filter_ = ClassicalDenoiser(
                contestant.method,
                stack.frame_shape,
                frames=contestant.frames,
                noise_model=self.ruler.noise_model,
            )
            training = self.division.training
            settle_strength(filter_, training, map(int, training.present_indices))
            return filter_, {"frames": filter_.frames, "strength": filter_.strength}
        bundle = open_bundle(self._bundle(contestant))
        manifest = bundle.manifest
        denoiser, _, _, forced = prepared(stack, bundle, self.ruler.noise_model)
        return denoiser, {
            "frames": 1 + manifest.context_frames,
            "algorithm": manifest.algorithm,
            "preset": manifest.preset,
            "parameters": manifest.training.parameters,
            "training_steps": manifest.training.steps,
            "training_minutes": manifest.training.seconds / 60,
            "model_sha256": bundle.model_sha256,
            "bundle": str(bundle.path),
            "pixel_maps": isinstance(denoiser, KnowsPixels) and denoiser.pixel_maps is not None,
            **({"remarks_on_model": forced} if forced else {}),
        }


def _concluded(
    folder: ComparisonFolder,
    rows: Sequence[Row],
    contest: _Contest,
    *,
    calibrated: bool,
    began: float,
) -> Comparison:
    """Rank, advise, and write result and page."""
    from .page import write_page

    ruler, division = contest.ruler, contest.division
    there = [row for row in rows if row.left_out is None]
    if not any(row.contestant.method != RAW for row in there):
        reasons = "; ".join(f"{row.name}: {row.left_out}" for row in rows if row.left_out)
        raise ComparisonError(
            f"{ruler.stack.path}: nothing could be compared with the raw frames ({reasons}); "
            "name other --methods or --models"
        )
    scene = _scene(division.training)
    advised = advice(there, knows_truth=ruler.knows_truth, frames=len(ruler.scored), scene=scene)
    order = {name: place for place, name in enumerate(advised.ranking)}
    ranked = sorted(rows, key=lambda row: order.get(row.name, len(order)))
    comparison = Comparison(
        folder=folder.path,
        rows=tuple(ranked),
        advice=advised,
        remarks=tuple(
            remarks_on(there, ruler, scene, zero_shot=division.zero_shot, calibrated=calibrated)
        ),
        facts={
            "stack": str(ruler.stack.path),
            "frame_shape": list(ruler.stack.frame_shape),
            "frames_scored": list(ruler.scored),
            "frame_shown": ruler.shown,
            "zero_shot": division.zero_shot,
            "truth": None
            if not ruler.knows_truth
            else "mean of the other repeats"
            if ruler.static
            else str(ruler.truth and ruler.truth.path),
            "ranked_by": "PSNR" if ruler.knows_truth else "held-out error",
            "noise_model": "calibrated" if calibrated else "bootstrapped",
            "noise_correlation_xy": scene.noise_correlation_xy,
            "moved_share": scene.moved_share,
            "minutes_each": contest.options.seconds / 60,
            "hardware": cpu_name(all_cores()),
            "seconds": time.monotonic() - began,
        },
    )
    write_page(comparison, folder, ruler)
    write_json(folder.path / RESULT, comparison.result())
    return comparison


def _scene(stack: Stack) -> Scene:
    figures = channel_figures(stack, "")
    moves = figures.moved_share
    # What moves looks like shared noise.
    still = moves is not None and moves <= MUCH_MOVED
    return Scene(figures.noise_correlation_xy if still else None, moves)
