"""Packages of others become bundles that give what they gave there, or are refused in a line."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import tifffile
import torch
from onnx import helper
from typer.testing import CliRunner

from quietscope import evaluate, load
from quietscope.cli import app
from quietscope.inference.errors import BundleError
from quietscope.inference.runtime.golden_output import GoldenOutput
from quietscope.training.errors import TrainingError
from quietscope.training.importing.from_package import read_package
from quietscope.training.importing.imported_bundle import write_import

from .conftest import box, box_network, scene

pytest.importorskip("bioimageio.spec")
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
"""bioimageio.spec leaves the files open that it packs."""


def steps(**named):
    from bioimageio.spec.model import v0_5 as zoo

    kinds = {
        "zero_mean_unit_variance": (zoo.ZeroMeanUnitVarianceDescr, zoo.ZeroMeanUnitVarianceKwargs),
        "scale_range": (zoo.ScaleRangeDescr, zoo.ScaleRangeKwargs),
        "scale_linear": (zoo.ScaleLinearDescr, zoo.ScaleLinearKwargs),
        "scale_mean_variance": (zoo.ScaleMeanVarianceDescr, zoo.ScaleMeanVarianceKwargs),
        "clip": (zoo.ClipDescr, zoo.ClipKwargs),
        "binarize": (zoo.BinarizeDescr, zoo.BinarizeKwargs),
    }
    return tuple(kinds[name][0](kwargs=kinds[name][1](**said)) for name, said in named.items())


def standardised(image):
    return (image - image.mean()) / (image.std() + 1e-6)


def ranged(image, low, high):
    a, b = np.percentile(image, (low, high))
    return (image - a) / (b - a + 1e-6)


CASES = {
    "as it is": ((), (), lambda image: box(image)),
    "linear there and back": (
        steps(scale_linear={"gain": 0.02, "offset": -1.5}),
        steps(scale_linear={"gain": 50.0, "offset": 75.0}),
        lambda image: 50 * box(0.02 * image - 1.5) + 75,
    ),
    "matched to the frame": (
        steps(zero_mean_unit_variance={"axes": ("y", "x")}),
        steps(scale_mean_variance={"reference_tensor": "raw", "axes": ("y", "x")}),
        lambda image: standardised(box(standardised(image))) * image.std() + image.mean(),
    ),
}


@pytest.mark.parametrize("axes", ["bcyx", "byxc"])
@pytest.mark.parametrize("case", CASES)
def test_the_golden_output_is_the_packages_own(case, axes, make_package, tmp_path):
    before, after, law = CASES[case]
    frame = scene()
    package = make_package(frame, law(frame), axes=axes, before=before, after=after)
    bundle = write_import(read_package(package), tmp_path / "model")
    golden = GoldenOutput(bundle)
    assert golden.observations.dtype == np.uint16
    np.testing.assert_array_equal(golden.observations[0], frame)
    assert np.abs(golden.expected[0] - law(frame)).max() < 1e-3 * law(frame).std()
    assert bundle.manifest.training.options["authors"] == "A. Lab"


@pytest.mark.parametrize(
    ("before", "law"),
    [
        (steps(zero_mean_unit_variance={}), standardised),
        (
            steps(scale_range={"min_percentile": 1, "max_percentile": 99.8}),
            lambda i: ranged(i, 1, 99.8),
        ),
    ],
    ids=["standardised", "ranged"],
)
def test_scaling_that_was_left_in_is_told_and_undone(before, law, make_package, tmp_path):
    frame = scene()
    package = make_package(frame, box(law(frame)), before=before)
    with pytest.raises(TrainingError, match=r"not in the camera's units .*--undo-scaling"):
        write_import(read_package(package), tmp_path / "model")
    assert not (tmp_path / "model").exists()
    bundle = write_import(read_package(package), tmp_path / "model", undo_scaling=True)
    estimate = GoldenOutput(bundle).expected[0]
    inner = (slice(1, -1), slice(1, -1))  # outside of the frame there is zero in other units
    np.testing.assert_allclose(estimate[inner], box(frame)[inner], rtol=1e-4)


def test_frames_of_any_size_are_denoised(make_package, tmp_path):
    frame = scene()
    model = load(write_import(read_package(make_package(frame, box(frame))), tmp_path / "m").path)
    odd = scene((37, 9)).astype(np.uint16)
    clean = model.denoise(odd[np.newaxis])[0]
    np.testing.assert_allclose(clean[:-1, :-1], box(odd)[:-1, :-1], rtol=1e-4)


def test_what_is_not_known_is_said_everywhere(make_package, tmp_path):
    frame = scene()
    package = make_package(frame, box(frame))
    done = CliRunner().invoke(
        app, ["import", str(package), "--out", str(tmp_path / "m"), "--json"]
    )
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["noise_model"] == "unknown"
    assert said["states_uncertainty"] is False
    assert said["test_tensor_max_relative_error"] < 1e-3
    model = load(tmp_path / "m")
    stack = np.stack([scene() for _ in range(3)]).astype(np.uint16)
    with pytest.raises(BundleError, match="states no uncertainty"):
        model.denoise(stack, uncertainty=True)
    with pytest.raises(BundleError, match="noise is not known"):
        _ = model.noise_model
    scores = evaluate(stack, model=model, truth=box(frame).astype(np.float32)).result()
    assert scores["psnr_db"] > scores["psnr_raw_db"]
    assert scores["uncertainty_z_std"] is None
    assert scores["variance_ratio"] is None
    assert scores["verdict"] is None


def test_a_noise_model_can_be_given(make_package, make_bundle, tmp_path):
    frame = scene()
    camera = make_bundle("camera") / "noise_model.npz"
    out = tmp_path / "m"
    line = ["import", str(make_package(frame, box(frame))), "--out", str(out)]
    done = CliRunner().invoke(app, [*line, "--noise-model", str(camera)])
    assert done.exit_code == 0, done.output
    model = load(out)
    assert model.noise_model.signal_range_adu[1] == 65535
    scores = evaluate(frame[None].astype(np.uint16), model=model, truth=box(frame).astype("f4"))
    assert scores.result()["variance_ratio"] > 0


# ---------------------------------------------------------------------------- what is refused


def changed(package: Path, name: str, content: bytes, out: str = "changed.zip") -> Path:
    """The package with another content of one file, or a further file."""
    out = package.with_name(out)
    with zipfile.ZipFile(package) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.namelist():
            new.writestr(entry, content if entry == name else old.read(entry))
        if name not in old.namelist():
            new.writestr(name, content)
    return out


def test_a_file_that_is_not_what_the_description_says_is_refused(make_package):
    frame = scene()
    package = make_package(frame, box(frame))
    for name in ("network.onnx", "raw.npy"):
        with pytest.raises(TrainingError, match=f"{name} is not what its description says"):
            read_package(changed(package, name, b"something else"))


@pytest.mark.timeout(60)
def test_functions_that_double_without_end_are_not_written_out(make_package, tmp_path):
    from bioimageio.spec.model import v0_5 as zoo

    model, opset = box_network(), [helper.make_opsetid("own", 1)]
    model.opset_import.extend(opset)
    model.graph.node[0].op_type, model.graph.node[0].domain = "0", "own"
    for level in range(40):
        called = str(level + 1)
        nodes = [
            helper.make_node(called, [one], [other], domain="own")
            for one, other in (("in", "between"), ("between", "out"))
        ]
        model.functions.append(
            helper.make_function("own", str(level), ["in"], ["out"], nodes, opset)
        )
    onnx.save(model, str(tmp_path / "doubling.onnx"))
    weights = zoo.OnnxWeightsDescr(source=tmp_path / "doubling.onnx", opset_version=13)
    frame = scene()
    package = make_package(frame, box(frame), weights=zoo.WeightsDescr(onnx=weights))
    with pytest.raises(BundleError, match="has more than 100000 operations"):
        read_package(package)


def npz(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def claims(shape: tuple[int, ...]) -> bytes:
    """A header of an array, and nothing after it."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read"),
        (npz(a=np.zeros(3)), "cannot be read"),
        (claims((1, 1, 10**6, 10**6)), "cannot be read"),
        (npy(np.array([{}], object)), "cannot be read"),
        (npy(np.zeros((4, 4), "f4")), "expected numbers along 4 axes"),
        (npy(np.zeros((1, 1, 0, 4), "f4")), "expected numbers"),
        (npy(np.zeros((1, 3, 64, 80), "f4")), "gives 3 channels"),
    ],
    ids=["empty", "npz", "claims", "objects", "two axes", "no pixel", "colours"],
)
def test_test_tensors_that_are_none_are_told_in_one_line(content, words, make_package):
    frame = scene()
    package = changed(make_package(frame, box(frame)), "clean.npy", content)
    with zipfile.ZipFile(package) as archive:
        said = archive.read("rdf.yaml").decode()
    lines = [line for line in said.splitlines() if "sha256" not in line]
    package = changed(package, "rdf.yaml", "\n".join(lines).encode(), out="again.zip")
    with pytest.raises(TrainingError, match=words) as error:
        read_package(package)
    assert "\n" not in str(error.value)


def test_a_package_that_was_damaged_on_its_way_is_told(make_package):
    frame = scene()
    package = make_package(frame, box(frame))
    with zipfile.ZipFile(package) as archive:
        entry = archive.getinfo("raw.npy")
    content = bytearray(package.read_bytes())
    start = entry.header_offset + 30 + len(entry.filename)
    content[start + 20 : start + 60] = bytes(40)
    package.write_bytes(content)
    with pytest.raises(TrainingError, match=r"no BioImage\.IO package"):
        read_package(package)


def test_names_that_lead_out_of_the_package_lead_nowhere(make_package, tmp_path):
    frame = scene()
    evil = changed(make_package(frame, box(frame)), "../../escaped.txt", b"x")
    read_package(evil)
    assert not list(tmp_path.parent.rglob("escaped.txt"))


def test_files_elsewhere_are_not_fetched(make_package):
    frame = scene()
    package = make_package(frame, box(frame))
    with zipfile.ZipFile(package) as archive:
        text = archive.read("rdf.yaml").decode()
    text = text.replace("source: network.onnx", "source: https://example.org/network.onnx")
    with pytest.raises(TrainingError, match="lies outside of the package"):
        read_package(changed(package, "rdf.yaml", text.encode()))


def test_values_that_differ_from_its_own_are_refused(make_package, tmp_path):
    frame = scene()
    package = make_package(frame, box(frame) + 3)
    with pytest.raises(TrainingError, match="gives other values here than its own test tensors"):
        write_import(read_package(package), tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_processing_that_is_not_known_is_named(make_package):
    frame = scene()
    package = make_package(frame, box(frame), after=steps(binarize={"threshold": 3.0}))
    with pytest.raises(TrainingError, match="clean is processed by binarize"):
        read_package(package)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_package_is_refused_in_one_line(content, tmp_path):
    path = tmp_path / "model.zip"
    path.write_bytes(content)
    with pytest.raises(TrainingError, match=r"no BioImage\.IO package") as error:
        read_package(path)
    assert "\n" not in str(error.value)


def test_torchscript_is_run_only_if_the_user_says_so(make_package, tmp_path):
    from bioimageio.spec.model import v0_5 as zoo

    network = torch.nn.Conv2d(1, 1, 3, padding=1, bias=False)
    network.weight.data[:] = 1 / 9
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(network, torch.zeros(1, 1, 16, 16)).save(tmp_path / "network.pt")
    weights = zoo.WeightsDescr(
        torchscript=zoo.TorchscriptWeightsDescr(
            source=tmp_path / "network.pt", pytorch_version=zoo.Version("2.0")
        )
    )
    frame = scene()
    package = make_package(frame, box(frame), weights=weights)
    with pytest.raises(TrainingError, match=r"TorchScript is a program.*--run-torchscript"):
        read_package(package)
    bundle = write_import(read_package(package, run_torchscript=True), tmp_path / "m")
    np.testing.assert_allclose(GoldenOutput(bundle).expected[0], box(frame), rtol=1e-4)


def test_a_package_of_ours_comes_back_as_it_was(trained_bundle, tmp_path):
    """Estimate and uncertainty, whatever the pixel type."""
    package = tmp_path / "ours.zip"
    line = ["bioimage", "--model", str(trained_bundle), "--out", str(package), "--author", "A"]
    assert CliRunner().invoke(app, line).exit_code == 0
    back = write_import(read_package(package), tmp_path / "back")
    assert back.manifest.states_uncertainty
    frames = np.random.default_rng(1).poisson(130, (1, 108, 120)).astype(np.uint16)
    there = load(trained_bundle).denoise(frames, uncertainty=True, force=True)
    here = load(back.path).denoise(frames, uncertainty=True)
    for one, other in zip(here, there, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)


def test_an_imported_model_is_not_trained_further(make_package, tmp_path):
    from quietscope.inference.library import Library
    from quietscope.training.retraining.request import Request
    from quietscope.training.retraining.retrain import one_round
    from quietscope.training.retraining.slots import Slot

    frame = scene()
    library = tmp_path / "library"
    bundle = write_import(read_package(make_package(frame, box(frame))), library / "models" / "m")
    slot = Slot(None, bundle.manifest.camera, bundle.path)
    decision = one_round(Library(library), slot, Request(steps=1))
    assert "is imported and was not trained on your recordings" in decision.result()["reason"]


def test_a_stack_is_denoised_by_the_command_and_its_uncertainty_refused(make_package, tmp_path):
    frame = scene()
    write_import(read_package(make_package(frame, box(frame))), tmp_path / "m")
    movie = tmp_path / "movie.tif"
    tifffile.imwrite(movie, frame[None].astype(np.uint16))
    line = ["denoise", str(movie), "--model", str(tmp_path / "m"), "--out"]
    out, unsure = tmp_path / "clean.ome.zarr", tmp_path / "unsure.ome.zarr"
    refused = CliRunner().invoke(app, [*line, str(out), "--uncertainty", str(unsure)])
    assert refused.exit_code == 1
    assert "states no uncertainty" in refused.output + str(refused.exception)
    assert not out.exists()
    done = CliRunner().invoke(app, [*line, str(out)])
    assert done.exit_code == 0, done.output


def test_a_package_that_is_not_there_is_no_reason_to_install_anything(monkeypatch, tmp_path):
    from quietscope.training.importing import package

    monkeypatch.setattr(package, "require_extra", lambda *_: pytest.fail("asked for a library"))
    with pytest.raises(TrainingError, match="no such file or folder"):
        read_package(tmp_path / "nowhere.zip")
