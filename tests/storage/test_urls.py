"""Stacks at URLs: the same frames as on disk, one line for what is missing, no secret kept."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from threading import Thread

import fsspec
import numpy as np
import pytest
import tifffile
import zarr
from fsspec.implementations.memory import MemoryFileSystem

from quietscope.storage.ome_zarr_writer import OmeZarrWriter
from quietscope.storage.open_stack import open_stack
from quietscope.storage.stack import StackError
from quietscope.storage.urls import UrlError, UrlPath, joined, local_path, without_credentials

PIXELS = np.random.default_rng(0).poisson(40, (12, 64, 72)).astype(np.uint16)
SECRET = "aVery/Secret+Key"


@pytest.fixture(autouse=True)
def empty_memory():
    yield
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.fixture
def run_directory(tmp_path):
    with OmeZarrWriter(
        tmp_path / "my run" / "raw.ome.zarr", frame_shape=PIXELS.shape[1:], dtype="uint16"
    ) as writer:
        for time, frame in enumerate(PIXELS):
            writer.write(frame, {"time": time})
    return tmp_path / "my run"


def upload(folder: Path, url: str):
    fsspec.filesystem("memory").put(str(folder), url, recursive=True)


def assert_frames(stack):
    assert dict(stack.sizes).get("time") == len(PIXELS)
    np.testing.assert_array_equal(np.squeeze(list(stack)), PIXELS)


def test_an_ome_zarr_and_the_run_that_holds_it(run_directory):
    upload(run_directory, "memory://lab/run")
    for url in ("memory://lab/run/raw.ome.zarr", "memory://lab/run", "memory://lab/run/"):
        assert_frames(open_stack(url))
    stack = open_stack("memory://lab/run/raw.ome.zarr")
    assert str(stack.path) == "memory://lab/run/raw.ome.zarr"
    assert stack.path.name == "raw.ome.zarr"
    assert not stack.path.exists()


@pytest.mark.parametrize("version", [2, 3])
def test_a_plain_zarr(version):
    array = zarr.create_array(
        "memory://lab/a.zarr", shape=PIXELS.shape, chunks=(1, 64, 72), dtype="uint16",
        zarr_format=version,
    )  # fmt: skip
    array[...] = PIXELS
    assert_frames(open_stack("memory://lab/a.zarr"))


def test_a_tiff():
    file = io.BytesIO()
    tifffile.imwrite(file, PIXELS, photometric="minisblack")
    fsspec.filesystem("memory").pipe("/lab/a.tif", file.getvalue())
    stack = open_stack("memory://lab/a.tif")
    assert_frames(stack)
    assert_frames(stack)
    file = io.BytesIO()
    tifffile.imwrite(file, PIXELS[0])
    fsspec.filesystem("memory").pipe("/lab/one.tif", file.getvalue())
    one = open_stack("memory://lab/one.tif")
    np.testing.assert_array_equal(one.frame(0), PIXELS[0])
    np.testing.assert_array_equal(one.frame(0), PIXELS[0])


def test_a_zipped_zarr_by_a_chained_url(tmp_path):
    store = zarr.storage.ZipStore(tmp_path / "a.zip", mode="w")
    array = zarr.create_array(store, shape=PIXELS.shape, chunks=(1, 64, 72), dtype="uint16")
    array[...] = PIXELS
    store.close()
    assert_frames(open_stack(f"zip://::file://{(tmp_path / 'a.zip').as_posix()}"))


def test_file_urls_are_paths(run_directory, tmp_path):
    stack = open_stack(run_directory.as_uri())  # the space in its name is %20
    assert_frames(stack)
    assert stack.path == run_directory / "raw.ome.zarr"
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, photometric="minisblack")
    assert_frames(open_stack((tmp_path / "a.tif").as_uri()))
    assert local_path("s3://bucket/a.zarr") is None


def test_nothing_at_a_url():
    with pytest.raises(
        StackError, match=r"^memory://lab/none: neither a Zarr.* or it may not be read: check"
    ):
        open_stack("memory://lab/none")
    with pytest.raises(StackError, match=r"^memory://lab/none\.tif: "):
        open_stack("memory://lab/none.tif")


@pytest.mark.parametrize(
    ("url", "package"), [("s3://bucket/a.zarr", "s3fs"), ("gs://bucket/a.zarr", "gcsfs")]
)
def test_a_missing_package_is_named(url, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)  # importing it fails, as where it is not
    protocol = url.partition(":")[0]
    monkeypatch.delitem(import_module("fsspec.registry")._registry, protocol, raising=False)
    with pytest.raises(UrlError, match=f"pip install {package}$") as caught:
        open_stack(url)
    assert str(caught.value).startswith(f"{url}: ")
    assert "\n" not in str(caught.value)


def test_an_unknown_kind_of_url_is_named():
    with pytest.raises(UrlError, match=r"^lab9://a\.zarr.*: no URL that fsspec understands"):
        open_stack("lab9://a.zarr")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"s3://AKIA:{SECRET}@bucket/a.zarr", "s3://bucket/a.zarr"),
        ("https://me:pw@host:8080/a.zarr", "https://host:8080/a.zarr"),
        ("ftp://me@host/a.tif", "ftp://host/a.tif"),
        ("https://me:p@ss:w@rd@host:8080/lab@home/a.zarr", "https://host:8080/lab@home/a.zarr"),
        ("https://host/a.tif?X-Amz-Signature=abc&x=1", "https://host/a.tif"),
        ("https://host:8080/lab@home/a.zarr", "https://host:8080/lab@home/a.zarr"),
        ("s3://bucket/lab@home/a.zarr", "s3://bucket/lab@home/a.zarr"),
        ("zip://a.zarr::https://me:pw@host/a.zip", "zip://a.zarr::https://host/a.zip"),
    ],
)
def test_credentials_are_not_shown(url, shown):
    assert without_credentials(url) == shown
    assert str(UrlPath(url)) == shown
    assert UrlPath(url).hides_credentials == (url != shown)
    assert (UrlPath(url) / "0" / "1").hides_credentials == (url != shown)


@pytest.mark.parametrize(
    ("url", "inside"),
    [
        ("https://host/a.zarr/?sig=x/y", "https://host/a.zarr/zarr.json?sig=x/y"),
        ("zip://::https://host/a.zip?sig=x", "zip://zarr.json::https://host/a.zip?sig=x"),
    ],
)
def test_a_query_stays_at_the_end(url, inside):
    assert joined(url, "zarr.json") == inside


def test_a_zarr_behind_a_signature(run_directory, tmp_path):
    pytest.importorskip("aiohttp", reason="fsspec needs it for http")

    class Signed(SimpleHTTPRequestHandler):
        def send_head(self):
            if not self.path.endswith("?sig=a%2Bb"):
                self.send_error(403)
                return None
            return super().send_head()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Signed, directory=str(tmp_path))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            place = f"http://127.0.0.1:{server.server_port}/my%20run"
            assert_frames(open_stack(f"{place}?sig=a%2Bb"))
            with pytest.raises(
                StackError, match="check address, connection and credentials"
            ) as no:
                open_stack(f"{place}?sig=forged")
        finally:
            server.shutdown()
    assert "forged" not in str(no.value)


@pytest.mark.parametrize("secret", [SECRET, "word"])
def test_an_error_of_the_connection_keeps_the_secret(secret):
    with pytest.raises((StackError, UrlError)) as caught:
        open_stack(f"ftp://me:{secret}@localhost:1/a.tif")
    assert not any(part in str(caught.value) for part in secret.split("/"))
    assert str(caught.value).startswith("ftp://localhost:1/a.tif: ")


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_train_denoise_and_evaluate_take_urls(run_directory, tmp_path):
    """One process, because memory:// lives in it; a query stands for a signed URL."""
    program = f"""
import fsspec, sys
fsspec.filesystem("memory").put({str(run_directory)!r}, "memory://lab/run", recursive=True)
from quietscope.cli import app
def run(*arguments):
    app(list(arguments), standalone_mode=False)
run("train", "memory://lab/run", {run_directory.as_uri()!r}, "--out", {str(tmp_path / "model")!r},
    "--preset", "fast", "--steps", "5", "--batch", "2", "--accept", "--json")
run("denoise", "memory://lab/run", "--model", {str(tmp_path / "model")!r},
    "--out", {str(tmp_path / "out.ome.zarr")!r}, "--provider", "cpu", "--json")
run("evaluate", "memory://lab/run", "--model", {str(tmp_path / "model")!r}, "--truth",
    "memory://lab/run", "--provider", "cpu", "--json")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    trained, denoised, scored = map(json.loads, done.stdout.splitlines())
    assert trained["frames"] == 24
    assert denoised["frames_denoised"] == 12
    assert scored["frames"] == 12
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text(encoding="utf-8"))
    assert [stack["path"] for stack in manifest["training"]["stacks"]] == [
        "memory://lab/run/raw.ome.zarr",
        str(run_directory / "raw.ome.zarr"),
    ]
