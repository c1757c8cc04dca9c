"""Whether the picture of a model has drifted in live sessions, by what the runs' reports say.

Owns the reading of those reports. The judgement itself was made while the run lasted, from the
trust figures of its frames.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ...storage.bounded_text import read_text
from ...storage.stack import Stack

REPORT = "report.json"
DRIFTED = ("care", "bad")
"""Words of a verdict that ask for a better model."""


def drift_in(runs: Iterable[Stack], channel: str | None) -> str | None:
    """Return in which run a model's picture was judged less than good; None if in none."""
    for whole in runs:
        verdict = _verdict(Path(whole.path).parent / REPORT, channel)
        if verdict.get("word") in DRIFTED:
            name = Path(whole.path).parent.name
            return f"in {name} the picture was judged {verdict['word']}: {verdict.get('headline')}"
    return None


def _verdict(report: Path, channel: str | None) -> Mapping[str, Any]:
    try:
        said = json.loads(read_text(report))
        by_channel = said.get("verdict_by_channel") or {}
        found = by_channel.get(channel or "", said.get("verdict"))
    except (OSError, ValueError, AttributeError):
        return {}
    return found if isinstance(found, dict) else {}
