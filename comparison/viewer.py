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
    # Inside a script element only its end could be mistaken for markup.
    content = json.dumps(payload, ensure_ascii=False, allow_nan=False).replace("</", "<\\/")
    return (
        f"<style>{style}</style>{markup}"
        f'<script type="application/json" id="viewer-data">{content}</script>'
        f"<script>{script}</script>"
    )
