"""A BioImage.IO model package, read without trusting it.

Owns the unpacking, the hashes, and what the description says of axes, sizes and scaling, in the
words of `foreign_network`. Nothing is fetched, no code of the package is run, and a file counts
only if it lies in the package and has the hash that the description gives.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import one_line, require_extra
from ...inference.bundle import LARGEST_FILE_BYTES, file_sha256
from ..errors import TrainingError
from .scaling import PLANE, SAMPLE, Clipped, Linear, Matched, Ranged, Sigmoid, Standardised, Step

DESCRIPTIONS = ("rdf.yaml", "bioimageio.yaml")
MOST_ENTRIES = 1000
MOST_BYTES = 2 * LARGEST_FILE_BYTES
MOST_DESCRIPTION_BYTES = 4 * 2**20
FIXED_EPS = 1e-6
"""What bioimageio.core adds to a fixed standard deviation."""
CONTEXT = "before"
"""How quietscope names the channels of preceding frames in its packages."""
_LETTERS = {"batch": "n", "channel": "c"}


@dataclass(frozen=True, slots=True)
class Package:
    """An unpacked package and its description, as `bioimageio.spec` 0.5 has it.

    Attributes
    ----------
    source
        What the user gave.
    folder
        Where it lies unpacked.
    description
        `bioimageio.spec.model.v0_5.ModelDescr`.
    """

    source: Path
    folder: Path
    description: Any

    @property
    def input(self) -> Any:
        """The only input.

        Raises
        ------
        TrainingError
            If there are several.
        """
        inputs = self.description.inputs
        if len(inputs) != 1:
            names = ", ".join(str(one.id) for one in inputs)
            raise TrainingError(
                f"{self.source}: takes {len(inputs)} images ({names}), expected one; import a "
                "model of one input"
            )
        return inputs[0]

    @property
    def outputs(self) -> list[Any]:
        """The outputs, the estimate first."""
        return list(self.description.outputs)

    @property
    def states_uncertainty(self) -> bool:
        """Whether the second output is the standard deviation of the first, as ours is."""
        return len(self.outputs) > 1 and str(self.outputs[1].id) == "uncertainty"

    def file(self, described: Any) -> Path:
        """Return a file of the package that has the hash of its description.

        Raises
        ------
        TrainingError
            If it lies elsewhere, is missing, or was changed.
        """
        named = str(described.source)
        path = self.folder / PurePosixPath(named.replace("\\", "/"))
        if "://" in named or not path.resolve().is_relative_to(self.folder.resolve()):
            raise TrainingError(
                f"{self.source}: {named} lies outside of the package; download the "
                "package as one ZIP file"
            )
        if not path.is_file():
            raise TrainingError(f"{self.source}: {named} is missing; download the package anew")
        expected = described.sha256
        if expected is not None and file_sha256(path) != str(expected):
            raise TrainingError(
                f"{self.source}: {named} is not what its description says (its SHA-256 differs); "
                "download the package anew"
            )
        return path

    def tensor(self, described: Any) -> NDArray[Any]:
        """Return the test tensor of an input or output.

        Raises
        ------
        TrainingError
            If there is none, or it cannot be read.
        """
        if described.test_tensor is None:
            raise TrainingError(
                f"{self.source}: has no test tensor of {described.id}, so nothing can prove that "
                "it does here what it did there; ask its authors for a package with test tensors"
            )
        path = self.file(described.test_tensor)
        try:
            with path.open("rb") as file:
                found: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        except (OSError, ValueError, EOFError, MemoryError) as error:
            raise TrainingError(
                f"{self.source}: its test tensor of {described.id} cannot be read "
                f"({one_line(error)[:200]}); download the package anew"
            ) from error
        if found.ndim != len(described.axes) or found.dtype.kind not in "biuf" or not found.size:
            raise TrainingError(
                f"{self.source}: its test tensor of {described.id} is of {found.dtype} and shape "
                f"{found.shape}, expected numbers along {len(described.axes)} axes; ask its "
                "authors for another"
            )
        return found


@contextmanager
def opened(source: Path) -> Iterator[Package]:
    """Unpack a package and read its description.

    Parameters
    ----------
    source
        A ZIP file, a folder, or the description in one.

    Raises
    ------
    MissingExtraError
        If `bioimageio.spec` is not installed.
    TrainingError
        If it is no package of a model.
    """
    if not source.exists():  # what no library can mend is said before one is asked for
        raise TrainingError(f"{source}: no such file or folder; give a BioImage.IO package")
    require_extra("bioimage", "import of a BioImage.IO package")
    with tempfile.TemporaryDirectory(prefix="quietscope-import-") as scratch:
        folder = _folder_of(source, Path(scratch))
        yield Package(source, folder, _description(source, folder))


def _folder_of(source: Path, scratch: Path) -> Path:
    if source.is_dir():
        return source
    if source.name in DESCRIPTIONS:
        return source.parent
    try:
        with zipfile.ZipFile(source) as archive:
            _unpack(source, archive, scratch)
    except TrainingError:
        raise
    except Exception as error:  # zipfile, and a type of its own for each way of packing
        raise TrainingError(
            f"{source}: no BioImage.IO package ({one_line(error)[:200]}); give its ZIP file, or "
            f"the folder with {DESCRIPTIONS[0]} in it"
        ) from error
    return scratch


def _unpack(source: Path, archive: zipfile.ZipFile, folder: Path) -> None:
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    size = sum(entry.file_size for entry in entries)
    if len(entries) > MOST_ENTRIES or size > MOST_BYTES:
        raise TrainingError(
            f"{source}: {len(entries)} files of {size / 2**30:.1f} GiB, expected at most "
            f"{MOST_ENTRIES} of {MOST_BYTES / 2**30:.0f} GiB; this is no model package"
        )
    for entry in entries:
        archive.extract(entry, folder)  # takes drives, roots and `..` out of the name


def _description(source: Path, folder: Path) -> Any:
    from bioimageio.spec import ValidationContext, load_description
    from bioimageio.spec.model import v0_5

    file = next((folder / name for name in DESCRIPTIONS if (folder / name).is_file()), None)
    if file is None:
        raise TrainingError(
            f"{source}: no BioImage.IO package (no {DESCRIPTIONS[0]} in it); give the ZIP file of "
            "a model"
        )
    if file.stat().st_size > MOST_DESCRIPTION_BYTES:
        raise TrainingError(
            f"{source}: its {file.name} is of {file.stat().st_size / 2**20:.0f} MiB, expected at "
            f"most {MOST_DESCRIPTION_BYTES / 2**20:.0f} MiB; this is no description of a model"
        )
    try:
        # Without looking at files: those that are used are looked at here, and no others fetched.
        with ValidationContext(root=folder, perform_io_checks=False, log_warnings=False):
            found = load_description(file, format_version="latest", perform_io_checks=False)
    except Exception as error:  # YAML, pydantic and the library's own types
        raise TrainingError(
            f"{source}: its {file.name} cannot be read ({one_line(error)[:200]}); download the "
            "package anew"
        ) from error
    if not isinstance(found, v0_5.ModelDescr):
        reasons = found.validation_summary.errors
        reason = f" ({reasons[0].msg})" if reasons else ""
        raise TrainingError(
            f"{source}: its {file.name} does not describe a model{reason}; give the package of a "
            "model"
        )
    return found


# ------------------------------------------------------------------- what the description says


def axes_of(package: Package, described: Any) -> str:
    """Return the order of a tensor's axes, of the letters n, c, y, x and z.

    Raises
    ------
    TrainingError
        If it is no stack of images, or has depth.
    """
    letters = ""
    for axis in described.axes:
        letter = _LETTERS.get(axis.type, str(axis.id))
        if letter == "z" and axis.size != 1:
            raise TrainingError(
                f"{package.source}: takes volumes (its axis z has more than one plane), expected "
                "single images; import a two-dimensional model"
            )
        letters += letter
    if not {"y", "x"} <= set(letters) <= set("ncyxz") or len(set(letters)) != len(letters):
        names = ", ".join(str(axis.id) for axis in described.axes)
        raise TrainingError(
            f"{package.source}: {described.id} has the axes {names}, expected an image of y and "
            "x; import a denoiser of images"
        )
    return letters


def sizes_of(package: Package) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the smallest height and width, and by what they grow; 0 for one size alone."""
    from bioimageio.spec.model import v0_5

    least, step = [], []
    for letter in "yx":
        axis = next(axis for axis in package.input.axes if str(axis.id) == letter)
        if isinstance(axis.size, int):
            least.append(axis.size)
            step.append(0)
        elif isinstance(axis.size, v0_5.ParameterizedSize):
            least.append(axis.size.min)
            step.append(axis.size.step)
        else:  # as large as the other axis
            raise TrainingError(
                f"{package.source}: its height and width depend on each other; import a model "
                "whose axes are free"
            )
    return (least[0], least[1]), (step[0], step[1])


def planes_of(package: Package) -> int:
    """Return how many frames the network is given.

    Raises
    ------
    TrainingError
        If its channels are none that a stream of frames has.
    """
    channels = [axis for axis in package.input.axes if axis.type == "channel"]
    names = [str(name) for axis in channels for name in axis.channel_names]
    ours = [f"{CONTEXT}{back}" for back in range(1, len(names))]
    if len(names) > 1 and names[1:] != ours:
        raise TrainingError(
            f"{package.source}: takes the channels {', '.join(names)}, expected one; import a "
            "model of one channel"
        )
    return max(1, len(names))


def steps_of(package: Package, described: Any, processing: list[Any]) -> tuple[Step, ...]:
    """Return pre- or postprocessing as steps of the graph.

    Raises
    ------
    TrainingError
        If one of them is not known.
    """
    return tuple(
        step for one in processing if (step := _step(package, described, one)) is not None
    )


def _step(package: Package, described: Any, one: Any) -> Step | None:
    name, said = str(one.id), one.kwargs
    if name == "ensure_dtype" and said.dtype.startswith("float"):
        return None  # everything here is float32 until the network takes it
    if name == "scale_linear":
        gains, offsets = _numbers(said.gain), _numbers(said.offset)
        if all(gains):
            shifts = tuple(-o / g for g, o in zip(gains, _as_many(offsets, gains), strict=True))
            return Linear(shifts, tuple(1 / gain for gain in gains))
    if name == "fixed_zero_mean_unit_variance":
        return Linear(_numbers(said.mean), tuple(s + FIXED_EPS for s in _numbers(said.std)))
    if name == "zero_mean_unit_variance":
        return Standardised(_over(said), said.eps)
    if name == "scale_range" and said.reference_tensor in (None, described.id):
        return Ranged(_over(said), said.min_percentile, said.max_percentile, said.eps)
    if name == "scale_mean_variance" and said.reference_tensor == package.input.id:
        return Matched(_over(said), said.eps)
    if name == "clip" and said.min_percentile is None and said.max_percentile is None:
        return Clipped(said.min, said.max)
    if name == "sigmoid":
        return Sigmoid()
    raise TrainingError(
        f"{package.source}: {described.id} is processed by {name}, which cannot be put into the "
        "graph; ask its authors for a package with scale_linear, zero_mean_unit_variance, "
        "scale_range or clip"
    )


def _numbers(said: float | Sequence[float]) -> tuple[float, ...]:
    return (said,) if isinstance(said, float) else tuple(said)


def _as_many(numbers: tuple[float, ...], others: tuple[float, ...]) -> tuple[float, ...]:
    return numbers if len(numbers) == len(others) else numbers * len(others)


def _over(said: Any) -> tuple[int, ...]:
    """Return the axes of statistics; None means all."""
    joint = said.axes is None or "channel" in [str(axis) for axis in said.axes]
    return SAMPLE if joint else PLANE
