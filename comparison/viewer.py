"""Pictures side by side in a browser: one contrast, one place, one zoom for all.

Owns how the viewer gets into a page. Its markup, style and script are the files beside this one:
plain HTML, CSS and JavaScript that read the page alone, without network or library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any


def viewer(payload: Mapping[str, Any]) -> str:
    """Return the viewer with what it shows, as HTML.

    Parameters
    ----------
    payload
        What the script reads; see `page`. Names in it are shown as text, never as HTML.
    """
    folder = files(__package__)
    style, markup, script = (
        folder.joinpath(f"viewer.{kind}").read_text(encoding="utf-8")
        for kind in ("css", "html", "js")
    )
    # No name in it may end the script element, or begin a comment that swallows its end.
    content = json.dumps(payload, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return (
        f"<style>{style}</style>{markup}"
        f'<script type="application/json" id="viewer-data">{content}</script>'
        f"<script>{script}</script>"
    )
