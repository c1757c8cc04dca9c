"""What the doctor says of this machine is what the machine does."""

from __future__ import annotations

import sys
from importlib import metadata

import pytest

from quietscope.doctor.this_machine import answer


def test_two_runtimes_over_each_other_are_a_fault(tmp_path, monkeypatch):
    both = {"onnxruntime": ["onnxruntime", "onnxruntime-gpu"]}
    monkeypatch.setattr(metadata, "packages_distributions", lambda: both)
    found = answer("inference", tmp_path)
    assert not found.passed
    assert "onnxruntime, onnxruntime-gpu are installed over each other" in found.value
    assert found.advice.startswith("pip uninstall onnxruntime onnxruntime-gpu")


@pytest.mark.skipif(sys.platform != "linux", reason="names a display of X11")
def test_a_display_that_nobody_serves_is_no_window(tmp_path, monkeypatch, qt):
    monkeypatch.delenv("QT_QPA_PLATFORM", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":987")
    assert answer("preview", tmp_path).value.startswith("no window: ")


def test_drawing_to_no_screen_is_no_window(tmp_path, monkeypatch, qt):
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    assert answer("preview", tmp_path).value == (
        "no window: Qt draws to no screen here (its platform is offscreen)"
    )
