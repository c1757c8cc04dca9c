"""The desktop icon: what is written on each system, and that nothing is replaced by accident."""

import sys

import pytest

from quietscope.gui.shortcut import write_shortcut
from quietscope.storage.atomic_output import OutputError


@pytest.mark.parametrize(
    ("platform", "name", "opens"),
    [
        ("linux", "quietscope.desktop", "Exec="),
        ("darwin", "quietscope.command", "exec "),
        ("win32", "quietscope.bat", "@start"),
    ],
)
def test_an_icon_for_each_system(tmp_path, platform, name, opens):
    written = write_shortcut(tmp_path / "my desk", platform=platform)
    ((path, text),) = written.items()
    assert path.name == name
    assert opens in text
    assert "quietscope.cli gui" in text
    assert f'"{sys.executable}"' in text  # whatever spaces it has
    assert path.read_text(encoding="utf-8") == text
    with pytest.raises(OutputError, match="is there already"):
        write_shortcut(tmp_path / "my desk", platform=platform)
    write_shortcut(tmp_path / "my desk", platform=platform, overwrite=True)


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="choose a --folder"):
        write_shortcut(tmp_path / "file" / "desk")


def test_without_a_screen_one_line_says_what_to_do(monkeypatch):
    from typer.testing import CliRunner

    from quietscope.cli import app

    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    asked = CliRunner().invoke(app, ["gui"])
    assert asked.exit_code == 1
    assert len(asked.stderr.strip().splitlines()) == 1
    assert "no screen" in asked.stderr
    bare = CliRunner().invoke(app, [])
    assert bare.exit_code == 0
    assert "Usage:" in bare.stdout
