"""Configurations as they are found on microscopes' computers."""

from __future__ import annotations

import json
import re

from mm_test_adapters import device_adapter_path
from typer.testing import CliRunner

from quietscope.acquisition.microscope.loaded_core import demo_installation
from quietscope.cli import app


def test_a_configuration_from_windows_with_an_umlaut(tmp_path):
    """The label must come back to the core as it went out, and into every file that is written."""
    text = demo_installation()[1].read_text(encoding="utf-8")
    labelled = re.sub(r"(?m)(?<=,)Camera(?=,|$)", "Kamera Süd", text)
    labelled = labelled.replace("Property,Core,Kamera Süd,", "Property,Core,Camera,")
    labelled = re.sub(r"(?m)^(ConfigGroup,.*,Core),Kamera Süd,", r"\1,Camera,", labelled)
    config = tmp_path / "Süd.cfg"
    config.write_bytes(labelled.encode("cp1252"))
    done = CliRunner().invoke(
        app,
        ["record", "--mm-dir", device_adapter_path(), "--config", str(config), "--frames", "3",
         "--out", str(tmp_path / "run"), "--roi", "0,0,64,64", "--json"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "camera: Kamera Süd (DemoCamera-MultiMode) of" in " ".join(done.stderr.split())
    assert json.loads(done.stdout)["frames_recorded"] == 3
    log = (tmp_path / "run" / "frames.jsonl").read_text(encoding="utf-8")
    assert log.count("Kamera Süd") >= 3
