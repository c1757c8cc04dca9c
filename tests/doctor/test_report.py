"""A report for strangers: versions and findings, without the person's names and places."""

from __future__ import annotations

import getpass
import platform
from pathlib import Path

import pytest

from quietscope.doctor.finding import Finding
from quietscope.doctor.report import without_person, write_report
from quietscope.storage.atomic_output import OutputError


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("recording to /data/Anna Lab/runs/monday", "monday"),
        (r"C:\Users\anna\My Runs\monday.ome.zarr is full", "monday.ome.zarr"),
        (r"\\server\share\anna\x.tif", "x.tif"),
        ("~/runs/x", "x"),
        ("s3://key:secret@anna-bucket/x", "s3://"),
        ("12 frames/s, 1/3 of them at 2048²; CPU and/or GPU", "12 frames/s, 1/3 of them"),
    ],
)
def test_of_a_path_only_its_last_name_is_left(said, kept):
    found = without_person(said)
    assert kept in found
    for secret in ("anna", "Anna", "Lab", "Users", "server", "share", "secret", "/data"):
        assert secret not in found


def test_names_of_the_person_and_the_machine_are_left_out():
    person, machine = getpass.getuser(), platform.node()
    found = without_person(f"{Path.home()}/x of {person} on {machine}: 3 frames")
    assert str(Path.home()) not in found
    for name in (person, machine):
        assert len(name) < 3 or name not in found
    assert "3 frames" in found


def test_the_file_holds_findings_and_versions_and_replaces_nothing(tmp_path):
    findings = [Finding("disk", False, f"{Path.home() / 'runs'} holds 1 GiB", "free some")]
    write_report(tmp_path / "report.md", findings)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "- disk: FAILED: …" in text
    assert "free some" in text
    assert "- tifffile 2" in text
    assert str(Path.home()) not in text
    with pytest.raises(OutputError, match="already exists"):
        write_report(tmp_path / "report.md", findings)
