"""Pictures of the window at every step, while it does the whole job on the demo camera.

Presses the buttons that a person would press and counts the clicks; each picture is taken at both
sizes. They are the ones of docs/window.md.

    python benchmarks/gui_screenshots.py --out docs/window --result gui_first_movie.json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from PIL import Image
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QPushButton

from quietscope.acquisition.preview.process import provide_fonts
from quietscope.gui.session import Session
from quietscope.gui.window.main_window import MainWindow
from quietscope.storage.atomic_output import write_json

SIZES = ((1280, 720), (2560, 1440))
PATIENCE_S = 240.0


class Person:
    """Clicks, waits, looks."""

    def __init__(self, window: MainWindow, out: Path | None) -> None:
        self.window, self.out = window, out
        self.clicks = 0
        self.began = time.monotonic()
        self.seconds: dict[str, float] = {}

    def click(self, button: QPushButton) -> None:
        if not (button.isVisible() and button.isEnabled()):
            raise SystemExit(f"“{button.text()}” cannot be clicked: {self._why()}")
        QTest.mouseClick(button, Qt.MouseButton.LeftButton)
        self.clicks += 1

    def wait(self, until: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
        end = time.monotonic() + patience_s
        while not until():
            QTest.qWait(50)
            if self.window.page.step.error or time.monotonic() > end:
                raise SystemExit(f"{what} did not come: {self._why()}")
        self.seconds[what] = round(time.monotonic() - self.began, 1)

    def look(self, name: str) -> None:
        """Take the picture at both sizes."""
        if self.out is None:
            return
        for size in SIZES:
            self.window.resize(*size)
            for _ in range(4):  # layout, then the fit that waits for it, then the drawing
                QTest.qWait(60)
            path = self.out / f"{name}-{size[0]}.png"
            self.window.grab().save(str(path), "PNG")
            small = Image.open(path).convert("RGB").quantize(256, dither=Image.Dither.NONE)
            small.save(path, optimize=True)
        self.window.resize(*SIZES[0])

    def _why(self) -> str:
        step = self.window.page.step
        return step.error or step.why_not() or str(step.seen and step.seen.remarks)


def whole_job(person: Person) -> None:
    """From nothing to a live denoised picture."""
    window = person.window
    session, pages = window.session, window.pages
    person.look("1-connect")
    person.click(pages["connect"].start)
    person.wait(lambda: session.current == "calibrate", "connected")
    person.click(pages["calibrate"].start)
    person.wait(lambda: len(session.calibrate.snapshot().levels) > 8, "light levels")
    person.look("2-calibrate-while")
    person.wait(lambda: not session.calibrate.busy, "calibrated")
    if session.current == "calibrate":  # a check is red: a person reads it, and goes on
        person.click(pages["calibrate"].go_on)
    window.go_to("calibrate")
    person.look("2-calibrate")
    window.go_to("record")
    person.click(pages["record"].start)
    person.wait(lambda: bool(session.record.snapshot().mailbox), "camera's picture")
    QTest.qWait(1500)
    person.look("3-record")
    person.wait(lambda: session.current == "train", "recorded")
    person.click(pages["train"].start)
    person.wait(
        lambda: (
            session.train.snapshot().tile is not None and len(session.train.snapshot().losses) > 12
        ),
        "first denoised crop",
    )
    person.look("4-train-while")
    person.wait(lambda: session.train.model is not None, "trained")
    window.tick()
    person.look("4-train")
    person.click(pages["train"].use_and_go)
    watch(person)


def watch(person: Person) -> None:
    """Look at the live run, and wait for its end."""
    live = person.window.session.live
    view = person.window.pages["live"].view
    person.wait(
        lambda: view.preview is not None and view.preview.denoised_panel.item.isVisible(),
        "live denoised picture",
    )
    QTest.qWait(2500)
    person.look("5-live")
    person.wait(lambda: not live.busy, "run over")
    person.window.tick()
    person.look("5-live-after")


def merged(person: Person) -> None:
    """Look at two channels in one picture: the key M in a run of both."""
    window, live = person.window, person.window.session.live
    facts = window.session.facts
    words = ["live", "--out", str(facts.workspace.new_run())]
    words += ["--library", str(facts.workspace.path), *facts.choice.words()]
    words += ["--channel", "DAPI", "--channel", "FITC", "--frames", "120", "--preview"]
    live.run(words)
    window.go_to("live")
    view = window.pages["live"].view
    person.wait(
        lambda: view.preview is not None and len(view.preview.channels.names) > 1, "two channels"
    )
    view.preview.bar.merge.click()
    person.wait(lambda: len(view.preview.denoised_panel.layers) > 1, "both in one picture")
    QTest.qWait(1500)
    person.look("8-merge")
    person.wait(lambda: not live.busy, "run of two channels over")


def opened(state: Path, workspace: Path) -> MainWindow:
    session = Session(state)
    session.facts.remember(workspace=workspace, appearance="dark")
    window = MainWindow(session)
    window.resize(*SIZES[0])
    window.show()
    return window


def main() -> None:
    """Do the job, take the pictures, print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="folder of the pictures; none are taken without")
    parser.add_argument("--keep", type=Path, help="do it in this folder, and keep it")
    parser.add_argument("--result", type=Path, help="also write the result here")
    options = parser.parse_args()
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    QApplication(["quietscope"])
    provide_fonts()
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        state, workspace = Path(temporary) / "state", Path(temporary) / "quietscope"
        if options.keep:
            workspace = options.keep.absolute()
        window = opened(state, workspace)
        person = Person(window, options.out)
        whole_job(person)
        first = {"clicks": person.clicks, "seconds": person.seconds}
        window.go_to("overnight")
        person.look("6-overnight")
        window.close()

        window = opened(state, workspace)  # the next day
        again = Person(window, None)
        again.click(window.pages["connect"].start)
        again.wait(lambda: window.session.current == "live", "connected")
        again.click(window.pages["live"].start)
        watch(again)
        clicks, seconds = again.clicks, dict(again.seconds)
        run = window.session.live.run_path
        report = window.session.live.report
        window.session.facts.remember(appearance="light")
        window.apply_theme()
        again.out = options.out
        window.go_to("train")
        again.look("7-light")
        window.session.facts.remember(appearance="dark")
        window.apply_theme()
        merged(again)
        window.close()
    result = {
        "hardware": f"{psutil.cpu_count()} CPU cores",
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "first_time": first,
        "second_time": {"clicks": clicks, "seconds": seconds},
        "run": None if run is None else run.name,
        "frames_recorded": report["frames_recorded"],
        "frames_denoised": report["frames_denoised"],
    }
    print(json.dumps(result, indent=2))
    if options.result:
        write_json(options.result, result)


if __name__ == "__main__":
    main()
