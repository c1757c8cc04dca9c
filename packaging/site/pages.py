"""Pages of the site that are made from the product: commands, Python, formats; and their order.

Owns what `mkdocs build` adds to `docs/`, and the links: a page links to files of the repository as
on GitHub, and the site leads there where it has no page of its own. A hook of MkDocs, see
`mkdocs.yml`.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
MADE_FROM = {
    "index.md": "README.md",
    "changes.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
}
"""Pages of the site that are files at the top of the repository."""

PYTHON = {
    "In your own script": ["quietscope.acquisition.LiveDenoiser"],
    "With arrays: `import quietscope as qs`": [
        "quietscope.arrays.functions.calibrate",
        "quietscope.arrays.functions.train",
        "quietscope.arrays.model.load",
        "quietscope.arrays.model.Model",
        "quietscope.arrays.functions.denoise",
        "quietscope.arrays.functions.evaluate",
        "quietscope.arrays.functions.compare",
    ],
    "Recordings": [
        "quietscope.storage.open_stack.open_stack",
        "quietscope.storage.open_options.OpenOptions",
        "quietscope.storage.stack.Stack",
        "quietscope.storage.stack.stack_from_array",
        "quietscope.storage.export_stack.export_stack",
    ],
    "The camera": [
        "quietscope.calibration.noise_files.load_noise_model",
        "quietscope.calibration.noise_model.NoiseModel",
    ],
    "Models": [
        "quietscope.inference.bundle.open_bundle",
        "quietscope.inference.denoiser.Denoiser",
        "quietscope.inference.offline.denoise_stack.denoise_stack",
        "quietscope.training.train.train",
        "quietscope.training.options.TrainingOptions",
    ],
}
"""What a script may rely on; everything else may change between versions."""

_LINK = re.compile(r"(?P<before>\]\(|src=\"|href=\")(?P<target>[^)\s\"#]+)(?P<after>[^)\"]*[)\"])")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made, as MkDocs asks for once its own are known."""
    made = {page: (ROOT / source).read_text("utf-8") for page, source in MADE_FROM.items()}
    made |= {
        "reference/commands.md": _commands(),
        "reference/python.md": _python(),
        "reference/formats.md": _formats(),
    }
    for page, content in made.items():
        files.append(File.generated(config, page, content=content))
    config.nav = _navigation(files, config.extra["sections"])
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Lead links to pages of the site where there is one, else to the repository."""
    own = page.file.src_uri
    source = MADE_FROM.get(own, f"docs/{own}")
    page_of = {f"docs/{uri}": uri for uri in files.src_uris} | {s: p for p, s in MADE_FROM.items()}

    def led(found: re.Match[str]) -> str:
        target = found["target"]
        if "://" in target or target.startswith(("mailto:", "/")):
            return found[0]
        in_repository = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if in_repository in page_of:
            there = posixpath.relpath(page_of[in_repository], posixpath.dirname(own) or ".")
        elif (ROOT / in_repository).exists():
            kind = "tree" if (ROOT / in_repository).is_dir() else "blob"
            there = f"{config.repo_url.rstrip('/')}/{kind}/main/{in_repository}"
        else:
            return found[0]  # MkDocs says that it leads nowhere
        return f"{found['before']}{there}{found['after']}"

    return _LINK.sub(led, markdown)


def _navigation(files: Any, sections: dict[str, list[str]]) -> list[dict[str, list[str]]]:
    there = [uri for uri in files.src_uris if uri.endswith((".md", ".ipynb"))]
    named = {page for pages in sections.values() for page in pages}
    found = {name: [page for page in pages if page in there] for name, pages in sections.items()}
    found["More"] = sorted(set(there) - named)
    return [{name: pages} for name, pages in found.items() if pages]


def _commands() -> str:
    """Return every command with its arguments and options, by typer's own description."""
    import typer
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    from quietscope.cli import app

    command = get_command(app)
    context = typer.Context(command, info_name="quietscope")
    text = get_docs_for_click(obj=command, ctx=context, name="quietscope", title="Commands")
    return re.sub(r"^(#+) ", lambda found: f"{found[1]} ", text, flags=re.MULTILINE)


def _python() -> str:
    parts = ["# From Python\n\nWhat a script may rely on.\n"]
    for heading, names in PYTHON.items():
        parts.append(f"## {heading}\n")
        parts += [f"::: {name}\n    options:\n      heading_level: 3\n" for name in names]
    return "\n".join(parts)


def _formats() -> str:
    """Return the schemas of the JSON that is written, by the models that read it."""
    from quietscope.calibration.fingerprint import CameraFingerprint
    from quietscope.inference.bundle import Manifest
    from quietscope.inference.provenance import Provenance
    from quietscope.inference.trust.null import TrustReference
    from quietscope.training.retraining.night_record import NightRecord

    schemas = {
        "`manifest.json` of a model bundle": Manifest,
        "The key `quietscope` of a denoised image": Provenance,
        "A camera's fingerprint": CameraFingerprint,
        "`trust_reference.json` of a model bundle": TrustReference,
        "`nights/DATE.json` of a library, and what `schedule run --json` prints": NightRecord,
    }
    parts = [
        "# Formats\n\nImages are OME-Zarr (NGFF 0.5); a noise model is an npz of plain arrays "
        "with a header of JSON. What commands print with `--json` is said on the "
        "[page of JSON](../json.md). What stands in the JSON beside images, as JSON Schema:\n"
    ]
    for title, model in schemas.items():
        schema = json.dumps(model.model_json_schema(), indent=2, ensure_ascii=False)
        parts.append(f"## {title}\n\n```json\n{schema}\n```\n")
    return "\n".join(parts)
