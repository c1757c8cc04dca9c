"""A bad picture is said where no window is open."""

from __future__ import annotations

import json
import time

import numpy as np

from quietscope.acquisition import LiveDenoiser
from quietscope.acquisition.stream import verdict_watch
from quietscope.acquisition.stream.verdict_watch import VerdictWatch

GOOD = {
    "residual_explained": 1.0,
    "residual_correlation": 0.0,
    "uncertainty_adu_median": 1.0,
    "saturated_share": 0.0,
}
SATURATED = {**GOOD, "saturated_share": 0.5}


class Clock:
    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(verdict_watch.time, "monotonic", lambda: self.now)


def test_a_change_for_good_is_logged_once_with_its_first_frame(monkeypatch):
    clock, said = Clock(monkeypatch), []
    watch = VerdictWatch(said.append)
    for index in range(60):
        clock.now = index / 4
        watch.add("GFP", GOOD if index < 30 else SATURATED, 100.0, index)
    assert len(said) == 2
    assert said[1].startswith("frame 30: picture of channel GFP is judged bad: Too much light.")
    verdict = watch.result()["verdict"]
    assert (verdict["word"], verdict["since_frame"]) == ("bad", 30)
    assert verdict["sentence"]
    assert verdict["since"]


def test_a_moment_is_no_verdict_and_the_worst_is_remembered(monkeypatch):
    clock, said = Clock(monkeypatch), []
    watch = VerdictWatch(said.append)
    bad = {5, *range(20, 40)}
    for index in range(80):
        clock.now = index / 4
        watch.add("", SATURATED if index in bad else GOOD, 100.0, index)
    assert [line.split(" is judged ")[1].split(":")[0] for line in said] == ["good", "bad", "good"]
    result = watch.result()
    assert result["verdict"]["word"] == "good"
    assert (result["worst_verdict"]["word"], result["worst_verdict"]["since_frame"]) == ("bad", 20)


def test_report_log_and_terminal_say_it(tmp_path, make_bundle, caplog):
    with LiveDenoiser(make_bundle(), tmp_path / "run", provider="cpu") as live:
        for t in range(6):
            image = np.full((32, 32), 65535, "uint16")
            live.image_process_fn(image, {"Axes": {"time": t}})
            time.sleep(0.05)
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    assert report["verdict"]["word"] == "bad"
    headline = report["verdict"]["headline"]
    assert f"judged bad: {headline}" in (tmp_path / "run" / "events.log").read_text("utf-8")
    assert headline in caplog.text
    assert live.report["verdict_by_channel"][""]["word"] == "bad"
