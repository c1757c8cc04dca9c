"""A page for a person: one HTML file with its figures inside, readable without a network.

Owns the look that calibration, training and demo reports share. Does not know what is shown.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..storage.atomic_output import new_file
from ..storage.output_kinds import Kind

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Light = Literal["green", "amber", "red"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1b2230; --soft: #5b6577; --line: #dfe3ea;
  --ground: #ffffff; --card: #f6f7f9; --green: #1a7f4b; --amber: #b36b00; --red: #c0302b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #9aa5b8; --line: #2c3340;
  --ground: #12151b; --card: #1a1f28; --green: #4cc38a; --amber: #f0a83a; --red: #ff6b64; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 2.5rem 1.5rem 4rem; background: var(--ground);
  color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", sans-serif; }
h1 { font-size: 1.9rem; margin: 0 0 .3rem; letter-spacing: -.02em; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; padding-top: 1.2rem;
  border-top: 1px solid var(--line); }
p { max-width: 46rem; margin: .4rem 0 .8rem; } .lead { font-size: 1.1rem; color: var(--soft); }
figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; border-radius: 6px;
  background: #fff; } figcaption { color: var(--soft); font-size: .92rem; max-width: 56rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem;
  margin: 1.2rem 0; } .tile { background: var(--card); border-radius: 8px; padding: .9rem 1rem; }
.tile b { display: block; font-size: 1.3rem; letter-spacing: -.02em; }
.tile span { color: var(--soft); font-size: .88rem; }
table { border-collapse: collapse; margin: .8rem 0; font-size: .95rem; }
th, td { text-align: left; padding: .35rem 1.2rem .35rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; } td.number { font-variant-numeric: tabular-nums; }
ul.remarks { max-width: 46rem; padding-left: 1.1rem; } ul.remarks li { margin: .35rem 0; }
ul.checks { list-style: none; padding: 0; } ul.checks li { margin: .45rem 0; }
.light { display: inline-block; min-width: 4.2rem; font-weight: 600; }
.wide { width: min(96vw, 110rem); margin-left: 50%; transform: translateX(-50%); }
.scroll { overflow-x: auto; }
.green { color: var(--green); } .amber { color: var(--amber); } .red { color: var(--red); }
"""


class Page:
    """An HTML page that is filled from top to bottom and then written in one step."""

    def __init__(self, title: str, lead: str = "") -> None:
        self._title = title
        self._parts = [f"<h1>{escape(title)}</h1>"]
        if lead:
            self._parts.append(f'<p class="lead">{escape(lead)}</p>')

    def heading(self, text: str) -> None:
        """Begin a section."""
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(f"<p>{escape(text)}</p>")

    def tiles(self, tiles: Sequence[tuple[str, str]]) -> None:
        """Add the few figures that matter most, as (value with unit, what it is)."""
        cells = "".join(
            f'<div class="tile"><b>{escape(value)}</b><span>{escape(label)}</span></div>'
            for value, label in tiles
        )
        self._parts.append(f'<div class="tiles">{cells}</div>')

    def bullets(self, items: Sequence[str]) -> None:
        """Add a list of sentences."""
        listed = "".join(f"<li>{escape(item)}</li>" for item in items)
        self._parts.append(f'<ul class="remarks">{listed}</ul>')

    def markup(self, html: str) -> None:
        """Add HTML as it stands; whoever makes it escapes what comes from outside."""
        self._parts.append(html)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Add a table."""
        head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
        body = "".join(
            "<tr>" + "".join(f'<td class="number">{escape(cell)}</td>' for cell in row) + "</tr>"
            for row in rows
        )
        self._parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")

    def checks(self, checks: Sequence[tuple[Light, str, str]]) -> None:
        """Add a list of checks as (light, name, what it says)."""
        words = {"green": "good", "amber": "look", "red": "failed"}
        items = "".join(
            f'<li><span class="light {light}">● {words[light]}</span> '
            f"<b>{escape(name)}</b>: {escape(advice)}</li>"
            for light, name, advice in checks
        )
        self._parts.append(f'<ul class="checks">{items}</ul>')

    def figure(self, figure: Figure, caption: str, *, dpi: int = 110) -> None:
        """Embed a matplotlib figure with a caption that says what to see in it."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", facecolor="white")
        self.picture(buffer.getvalue(), caption)

    def picture(self, png: bytes, caption: str) -> None:
        """Embed a PNG image."""
        data = base64.b64encode(png).decode("ascii")
        self._parts.append(
            f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )

    def write(self, path: Path) -> None:
        """Write the page to `path` in one visible step."""
        document = (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(self._title)}</title><style>{_STYLE}</style></head>"
            f"<body>{''.join(self._parts)}</body></html>\n"
        )
        with new_file(path, kind=Kind.PAGE) as staging:
            staging.write_text(document, encoding="utf-8")
