"""Denoising on a real local Dask cluster: the same store, also when a worker dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from quietscope.inference.errors import InferenceError
from quietscope.inference.offline.denoise_stack import denoise_stack
from quietscope.storage.ome_zarr_writer import OmeZarrWriter
from quietscope.storage.open_stack import open_stack
from quietscope.storage.stack import stack_from_array

distributed = pytest.importorskip("distributed", reason="Dask is not installed")

from quietscope.inference.offline.cluster import denoise_on_cluster  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    # Dask's own event loop leaves sockets to the collector when a worker is killed.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

SHAPE = (24, 32)
SIZES = {"position": 2, "time": 15, "channel": 2}


@pytest.fixture
def recording(tmp_path):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 4096, (*SIZES.values(), *SHAPE), dtype=np.uint16)
    with OmeZarrWriter(tmp_path / "raw.ome.zarr", frame_shape=SHAPE, dtype="uint16") as writer:
        for place in np.ndindex(*SIZES.values()):
            axes = dict(zip(SIZES, place, strict=True))
            if axes != {"position": 1, "time": 14, "channel": 1}:  # never recorded
                writer.write(pixels[place], axes)
    return open_stack(tmp_path / "raw.ome.zarr")


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    ) as running:
        yield running


def assert_complete(recording, out):
    written = open_stack(out)
    assert dict(written.sizes) == dict(recording.sizes)
    for index in range(len(recording) - 1):
        expected = ndimage.uniform_filter(
            recording.frame(index).astype(np.float64), 3, mode="nearest"
        )
        np.testing.assert_allclose(written.frame(index), expected, rtol=1e-5)


def test_the_same_store_from_many_processes(cluster, recording, make_bundle, tmp_path):
    steps = []
    result = denoise_on_cluster(
        recording,
        make_bundle(),
        tmp_path / "out.ome.zarr",
        cluster.scheduler_address,
        part_frames=7,
        provider="cpu",
        on_progress=lambda *step: steps.append(step),
    )
    assert result["frames_denoised"] == 59
    assert result["frames_absent"] == 1
    assert result["parts"] == 9
    assert steps[-1] == (59, 59)
    assert_complete(recording, tmp_path / "out.ome.zarr")


def test_context_reaches_across_parts(cluster, recording, make_bundle, tmp_path):
    bundle = make_bundle(context_frames=2)
    for name, run in (
        ("alone", denoise_stack),
        ("together", lambda *a, **k: denoise_on_cluster(*a, cluster.scheduler_address, **k)),
    ):
        options = {} if name == "alone" else {"part_frames": 4}
        run(recording, bundle, tmp_path / f"{name}.ome.zarr", provider="cpu", **options)
    alone, together = (open_stack(tmp_path / f"{n}.ome.zarr") for n in ("alone", "together"))
    np.testing.assert_array_equal(together.present_indices, alone.present_indices)
    for index in alone.present_indices:
        np.testing.assert_array_equal(together.frame(index), alone.frame(index))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_worker_that_dies_costs_a_retry_not_data(cluster, recording, make_bundle, tmp_path):
    with distributed.Client(cluster) as client:
        workers = dict(client.run(os.getpid))
        killed = []

        def kill_one(done, total):
            if not killed:
                killed.append(next(iter(workers.values())))
                os.kill(killed[0], signal.SIGKILL)

        result = denoise_on_cluster(
            recording,
            make_bundle(),
            tmp_path / "out.ome.zarr",
            cluster.scheduler_address,
            part_frames=3,
            provider="cpu",
            on_progress=kill_one,
        )
        assert killed
        assert result["frames_denoised"] + result["frames_kept"] == 59
    assert_complete(recording, tmp_path / "out.ome.zarr")


def test_a_channel_without_a_model_is_left_out(cluster, recording, make_bundle, tmp_path):
    result = denoise_on_cluster(
        recording,
        {"0": make_bundle()},
        tmp_path / "out.ome.zarr",
        cluster.scheduler_address,
        part_frames=7,
        provider="cpu",
    )
    assert result["frames_denoised"] == 30
    assert result["frames_kept"] == result["frames_absent"] == 0
    assert result["parts"] == 5


@pytest.mark.long
def test_the_command_starts_workers_of_its_own_and_goes_on_where_it_stopped(
    recording, make_bundle, tmp_path
):
    given = [recording.path, "--model", make_bundle(), "--out", tmp_path / "out put.ome.zarr"]
    script = "import sys; from quietscope.cli import main; sys.argv[0] = 'quietscope'; main()"
    command = [sys.executable, "-c", script, "denoise", *map(str, given), "--provider", "cpu"]
    first = subprocess.run(
        [*command, "--scheduler", "local", "--json"], capture_output=True, text=True, check=False
    )
    assert first.returncode == 0, first.stderr
    result = json.loads(first.stdout)
    assert (result["frames_denoised"], result["frames_absent"]) == (59, 1)
    assert_complete(recording, tmp_path / "out put.ome.zarr")
    again = subprocess.run(
        [*command, "--scheduler", "local", "--resume", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(again.stdout)
    assert (result["frames_denoised"], result["frames_kept"]) == (0, 59)


def test_a_part_that_fails_on_every_try_is_one_line(cluster, recording, make_bundle, tmp_path):
    bundle = make_bundle()
    denoise_on_cluster(
        recording,
        bundle,
        tmp_path / "out.ome.zarr",
        cluster.scheduler_address,
        part_frames=60,
        provider="cpu",
    )
    (bundle / "model.onnx").write_bytes(b"broken meanwhile")
    from quietscope.inference.offline.cluster import _run

    with (
        distributed.Client(cluster) as client,
        pytest.raises(InferenceError, match=r"a part of 2 frames failed on 4 tries") as caught,
    ):
        _run(client, recording.path, bundle, tmp_path / "out.ome.zarr", [[0, 1]], {}, None)
    assert "\n" not in str(caught.value)


def test_a_scheduler_that_is_not_there(recording, make_bundle, tmp_path):
    with pytest.raises(InferenceError, match="address that `dask scheduler` printed"):
        denoise_on_cluster(recording, make_bundle(), tmp_path / "out.ome.zarr", "nowhere:1:2:3")


def test_many_processes_write_no_tiff(recording, make_bundle, tmp_path):
    with pytest.raises(InferenceError, match="a TIFF is written by one"):
        denoise_on_cluster(recording, make_bundle(), tmp_path / "out.ome.tif")


def test_a_stack_in_memory_cannot_be_sent():
    stack = stack_from_array(np.zeros((1, *SHAPE), np.uint16), path="in memory only")
    with pytest.raises(InferenceError, match="save it first"):
        denoise_on_cluster(stack, "model", "out.ome.zarr")
