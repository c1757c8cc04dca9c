"""What lies at a path, told by what it holds: a run, a store, a bundle, a library, a demo.

Owns the rule which of these may take the place of which. A thing is only ever replaced by one of
its own kind, so a recording is never replaced by anything that was computed from it, and what this
program did not write is not replaced at all. Does not move or delete anything.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

RAW = "raw.ome.zarr"
"""What a run directory records."""
COMPARISON_SETTINGS = "comparison_settings.json"
"""What every comparison begins with."""

ZARR_FILES = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
SOFTWARE = "quietscope: "
"""In a TIFF's tag of that name, before the words for what the file is."""
_OF_A_RUN = (RAW, "frames.jsonl", "events.log")
_BEGUN_DEMO = (frozenset({"camera.npz"}), frozenset({"camera.npz", "camera.html"}))
_NDTIFF_SUMMARY, _NDTIFF_MARK, _LARGEST_SUMMARY = 20, 2355492, 16 * 2**20
_TIFF_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class Kind(Enum):
    """What a path holds, in words for a message."""

    RUN = "a run"
    RECORDING = "a recording"
    DENOISED = "a denoised stack"
    LIGHT_LEVELS = "the light levels of a calibration"
    BUNDLE = "a model bundle"
    LIBRARY = "a library"
    DEMO = "a demo"
    NOISE_MODEL = "a noise model"
    PAGE = "a page of figures"
    PACKAGE = "a model package"
    FIGURE = "a figure"
    COMPARISON = "a comparison"


def kind_of(path: Path) -> Kind | None:
    """Return what lies at `path`; None for what this program does not write.

    A Zarr store or a TIFF that does not say that it was denoised is a recording, as is an NDTiff:
    whoever wrote them, there may be no other copy.
    """
    try:
        return _kind_of_folder(path) if path.is_dir() else _kind_of_file(path)
    except OSError:
        return None


def kind_of_store(attributes: Mapping[str, Any]) -> Kind:
    """Return what a store with these attributes is: denoised, or else a recording."""
    about = attributes.get("quietscope")
    is_denoised = isinstance(about, Mapping) and about.get("kind") == "denoised"
    return Kind.DENOISED if is_denoised else Kind.RECORDING


def is_part_of_run(path: Path) -> bool:
    """Whether `path` is one of the stores or files of a run directory."""
    return any((path.parent / name).exists() for name in _OF_A_RUN)


def _kind_of_folder(path: Path) -> Kind | None:
    """Most telling first: a demo holds a library, and a library runs and bundles."""

    def holds(*names: str) -> bool:
        return any((path / name).exists() for name in names)

    if holds("library") or _names(path) in _BEGUN_DEMO:
        return Kind.DEMO
    if holds(COMPARISON_SETTINGS):
        return Kind.COMPARISON
    if holds("current.json", "models"):
        return Kind.LIBRARY
    if holds(*ZARR_FILES):
        return kind_of_store(_attributes(path))
    if holds("NDTiff.index"):
        return kind_of_store(_summary(path))
    if holds(*_OF_A_RUN):
        return Kind.RUN
    if holds("manifest.json") and holds("model.onnx"):
        return Kind.BUNDLE
    if any(path.glob(f"*/{RAW}")):
        return Kind.LIBRARY
    if any(path.glob("level-*.ome.zarr")) or holds("dark.ome.zarr"):
        return Kind.LIGHT_LEVELS
    return None


def _names(folder: Path) -> frozenset[str]:
    return frozenset(item.name for item in folder.iterdir())


def _attributes(store: Path) -> Mapping[str, Any]:
    """Return the attributes of the store or, in a damaged collection, of its first image."""
    for file in (store / "zarr.json", store / "0" / "zarr.json", store / ".zattrs"):
        try:
            description = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        found = description.get("attributes") if isinstance(description, dict) else None
        if isinstance(found, dict) and "quietscope" in found:
            return found
    return {}


def _summary(ndtiff: Path) -> Mapping[str, Any]:
    """Return the summary metadata of an NDTiff dataset, which stand at the head of each file."""
    for file in sorted(ndtiff.glob("*NDTiffStack*.tif"))[:1]:
        with file.open("rb") as opened:
            opened.seek(_NDTIFF_SUMMARY)
            try:
                mark, length = struct.unpack("<II", opened.read(8))
                if mark == _NDTIFF_MARK and length <= _LARGEST_SUMMARY:
                    found = json.loads(opened.read(length))
                    return found if isinstance(found, dict) else {}
            except (ValueError, struct.error):
                return {}
    return {}


def _kind_of_file(path: Path) -> Kind | None:
    with path.open("rb") as file:
        beginning = file.read(64).lstrip().lower()
    if beginning.startswith(tuple(mark.lower() for mark in _TIFF_BEGINNINGS)):
        return _kind_of_tiff(path)
    if beginning.startswith((b"<!doctype html", b"<html")):
        return Kind.PAGE
    if beginning.startswith(b"\x89png"):
        return Kind.FIGURE
    if beginning.startswith(b"pk"):
        return _kind_of_archive(path)
    return None


def _kind_of_tiff(path: Path) -> Kind:
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            written_by = file.pages.first.tags.valueof("Software")
    except Exception:  # a damaged file can fail anywhere inside the reader
        return Kind.RECORDING
    return Kind.DENOISED if written_by == f"{SOFTWARE}{Kind.DENOISED.value}" else Kind.RECORDING


def _kind_of_archive(path: Path) -> Kind | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, ValueError):
        return None
    if {"format.npy", "header.npy"} <= names or "trained_weight.npy" in names:
        return Kind.NOISE_MODEL
    if names & {"rdf.yaml", "bioimageio.yaml"}:
        return Kind.PACKAGE
    return None
