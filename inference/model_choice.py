"""Which model serves which channel, and the `--model` option that says so.

Owns that one rule for offline, live and evaluation: a model of a channel's own name comes first,
then the one that is given for every channel. Running a model, and what a recording's channels are
called, is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Generic, TypeVar

import typer

from ..calibration.fingerprint import CameraFingerprint
from .bundle import Bundle, open_bundle
from .denoiser import Denoiser, DenoiserFactory
from .errors import InferenceError
from .provenance import ModelIdentity

EVERY_CHANNEL = "*"
"""The name of the model that serves every channel without one of its own."""

OpenModel = Bundle | Denoiser | DenoiserFactory
Model = OpenModel | Path | str
Models = Model | Mapping[str | int, Model] | None
"""None, one model for every channel, or one for each channel by the channel's name or number."""
Chosen = TypeVar("Chosen")

ModelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="BUNDLE",
        help="Model bundle; CHANNEL=BUNDLE for a channel of its own, given once for each; "
        "`general` is the model that ships. Without, the model in use in the library, or else the "
        "general one.",
        show_default=False,
    ),
]
LibraryOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="The library whose model in use is taken; without, the one around.",
        show_default=False,
    ),
]


def parse_models(given: Sequence[str]) -> Path | dict[str | int, Path]:
    """Read what `--model` was given: one bundle, or CHANNEL=BUNDLE for each channel.

    Raises
    ------
    InferenceError
        If it is neither.
    """
    if len(given) == 1 and ("=" not in given[0] or Path(given[0]).exists()):
        return Path(given[0])
    models: dict[str | int, Path] = {}
    for item in given:
        name, separator, path = item.partition("=")
        if not separator or not name or not path or name in models:
            raise InferenceError(
                f"--model {item!r} is not CHANNEL=BUNDLE with a channel of its own; give one "
                "bundle for all channels or one per channel"
            )
        models[name] = Path(path)
    return models


class ModelChoice(Generic[Chosen]):
    """Models by the names of the channels that they serve.

    Parameters
    ----------
    by_name
        A channel's number counts as its name; EVERY_CHANNEL serves those that have none.
    """

    def __init__(self, by_name: Mapping[str, Chosen]) -> None:
        self._by_name = dict(by_name)

    def __bool__(self) -> bool:
        return bool(self._by_name)

    @property
    def names(self) -> tuple[str, ...]:
        """The channels that have a model of their own."""
        return tuple(name for name in self._by_name if name != EVERY_CHANNEL)

    @property
    def models(self) -> tuple[Chosen, ...]:
        """All of them, each as often as it was given."""
        return tuple(self._by_name.values())

    def of(self, channel: str | int | None) -> Chosen | None:
        """Return what serves a channel, None if nothing does.

        `channel` is its name or number; None where the frames have no channels, which counts as
        the first.
        """
        name = "0" if channel is None else str(channel)
        return self._by_name.get(name, self._by_name.get(EVERY_CHANNEL))

    def replaced(self, by_name: Mapping[str, Chosen]) -> ModelChoice[Chosen]:
        """Return the same choice with other models under these names."""
        return ModelChoice({**self._by_name, **by_name})

    def first_named(self, names: Iterable[str | int | None]) -> str | None:
        """Return the first of several names of a channel that has a model of its own."""
        own = (str(name) for name in names if name is not None)
        return next((name for name in own if name in self.names), None)

    def bundles(self) -> dict[str, Bundle]:
        """Return those that are bundles, by the names that they were given."""
        return {name: m for name, m in self._by_name.items() if isinstance(m, Bundle)}

    def of_bundles(self) -> ModelChoice[Bundle]:
        """Return the same choice for whoever takes bundles alone.

        Raises
        ------
        InferenceError
            If there is another denoiser among them.
        """
        if len(self.bundles()) < len(self._by_name):
            raise InferenceError(
                "expected model bundles or their paths, given a denoiser of one's own; call its "
                "`denoise` frame by frame instead"
            )
        return ModelChoice(self.bundles())

    def distinct_bundles(self) -> tuple[Bundle, ...]:
        """Return every bundle once."""
        return tuple({bundle.path: bundle for bundle in self.bundles().values()}.values())

    def identities(self, channels: Iterable[str]) -> dict[str, ModelIdentity]:
        """Return what identifies the bundle of each of these channels, and of those named."""
        found = {name: self.of(name) for name in dict.fromkeys([*channels, *self.names])}
        return {
            name: ModelIdentity.of(model)
            for name, model in found.items()
            if isinstance(model, Bundle)
        }

    def require_channels(self, channels: Sequence[str], *, where: str) -> None:
        """Refuse models of channels that there are not.

        Raises
        ------
        InferenceError
            Naming the channels of `where`.
        """
        unknown = [name for name in self.names if name not in channels]
        if unknown or not self:
            raise InferenceError(
                f"{where}: has the channels {', '.join(channels)}, models were given for "
                f"{', '.join(sorted(self.names)) or 'none'}; name its channels "
                "(--model CHANNEL=BUNDLE)"
            )

    def worth(self) -> list[str]:
        """Return a line for each bundle that is no better than a blur and was not accepted."""
        return [
            f"the model {bundle.path} was found no better than its input or a blur of it when it "
            "was trained; train it for longer or on more frames"
            for bundle in self.distinct_bundles()
            if bundle.manifest.accepted is False
        ]

    def require_camera(self, running: CameraFingerprint, *, force: bool) -> list[str]:
        """Refuse bundles of another camera; with `force`, return how they differ.

        Raises
        ------
        CameraMismatchError
            Naming every property that differs.
        """
        remarks = []
        for bundle in self.distinct_bundles():
            camera = bundle.manifest.camera
            if not force:
                camera.require_match(running, what=f"the model {bundle.path}")
            remarks += camera.differences(running)
        return remarks


def open_models(models: Models) -> ModelChoice[OpenModel]:
    """Open what a user gave, paths as bundles.

    Raises
    ------
    BundleError
        If a bundle is missing, incomplete or altered.
    """
    if models is None:
        return ModelChoice({})
    given = models if isinstance(models, Mapping) else {EVERY_CHANNEL: models}
    return ModelChoice(
        {
            str(name): open_bundle(model) if isinstance(model, str | Path) else model
            for name, model in given.items()
        }
    )
