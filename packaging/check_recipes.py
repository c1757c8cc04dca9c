"""Are the recipes sound, as far as this machine can tell? Each check is told as run or not run.

    python packaging/check_recipes.py [--recipe-schema FILE] [--citation-schema FILE]

Versions agree; the conda recipe, the workflows and CITATION.cff fit their JSON schemas
(`pip install check-jsonschema`); the Dockerfile, by hadolint and by a build where there are
such programs; the parts of the Windows installer are gathered and name files that are there. The
result goes to `packaging/results/`; the exit status is 1 where a check that ran has failed.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RECIPE_SCHEMA = "https://raw.githubusercontent.com/prefix-dev/recipe-format/main/schema.json"
CITATION_SCHEMA = "https://citation-file-format.github.io/1.2.0/schema.json"
OUT_OF_REACH = ("Cannot connect to the Docker daemon", "Failed to resolve", "create_connection")
"""What says that an engine or a network is missing, not that a recipe is wrong."""


class NotRunError(Exception):
    """Why a check cannot be made here."""


def run(*words: object) -> str:
    """Run a program; raise with what it says if it fails."""
    if shutil.which(str(words[0])) is None:
        raise NotRunError(f"{words[0]} is not installed here")
    done = subprocess.run([str(w) for w in words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise ValueError((done.stdout + done.stderr).strip().splitlines()[-1:])
    return done.stdout


def versions() -> str:
    """`version.py` is the only place; the recipe repeats it."""
    text = (ROOT / "version.py").read_text(encoding="utf-8")
    own = re.search(r'__version__ = "(.+?)"', text)
    recipe = yaml.safe_load((HERE / "conda" / "recipe.yaml").read_text(encoding="utf-8"))
    found = {"quietscope": own and own[1], "conda": recipe["context"]["version"]}
    if len(set(found.values())) != 1:
        raise ValueError(f"versions differ: {found}")
    return str(found["conda"])


def conda_requirements() -> str:
    """Every requirement of pyproject.toml is one of the recipe, or said to come by pip."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    recipe = yaml.safe_load((HERE / "conda" / "recipe.yaml").read_text(encoding="utf-8"))
    there = " ".join(recipe["requirements"]["run"]) + recipe["about"]["description"]
    on_conda = {"PySide6-Essentials": "pyside6", "onnxruntime-gpu": "onnxruntime"}
    names = [re.split(r"[\[<>=;, ]", line)[0] for line in project["dependencies"]]
    lost = [n for n in names if on_conda.get(n, n).lower() not in there.lower()]
    if lost:
        raise ValueError(f"the conda recipe lacks {', '.join(lost)}")
    return f"{len(names)} requirements"


def windows() -> str:
    """Gather the installer's parts: what its recipe names has to be there."""
    run(sys.executable, HERE / "windows" / "build.py")
    folder = ROOT / "build" / "windows"
    recipe = yaml.safe_load((folder / "construct.yaml").read_text(encoding="utf-8"))
    named = [name for pair in recipe["extra_files"] for name in pair]
    named += [recipe["icon_image"], recipe["license_file"], recipe["post_install"]]
    lost = [name for name in named if not (folder / name).is_file()]
    menu = json.loads((folder / "quietscope_menu.json").read_text(encoding="utf-8"))
    if lost or not menu["menu_items"]:
        raise ValueError(f"not there: {', '.join(lost)}")
    return f"{len(named)} parts"


def installer() -> str:
    """Build the installer itself."""
    if sys.platform != "win32":
        raise NotRunError("constructor makes Windows installers on Windows alone")
    return run("constructor", ROOT / "build" / "windows", "--output-dir", ROOT / "dist")


def main() -> None:
    """Check, tell, write down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe-schema", default=RECIPE_SCHEMA)
    parser.add_argument("--citation-schema", default=CITATION_SCHEMA)
    given = parser.parse_args()
    schema, builtin = "check-jsonschema", "--builtin-schema"
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    docker = HERE / "docker" / "Dockerfile"
    checks: dict[str, Callable[[], str]] = {
        "versions agree": versions,
        "conda recipe has every requirement": conda_requirements,
        "conda recipe fits its schema": lambda: run(
            schema, "--schemafile", given.recipe_schema, HERE / "conda" / "recipe.yaml"
        ),
        "conda package builds": lambda: run(
            "rattler-build", "build", "--recipe", HERE / "conda" / "recipe.yaml"
        ),
        "workflows fit their schema": lambda: run(
            schema, builtin, "vendor.github-workflows", *workflows
        ),
        "CITATION.cff fits its schema": lambda: run(
            schema, "--schemafile", given.citation_schema, ROOT / "CITATION.cff"
        ),
        "parts of the Windows installer": windows,
        "Windows installer builds": installer,
        "Dockerfile by hadolint": lambda: run("hadolint", docker),
        "Docker image builds": lambda: run(
            "docker", "build", "--file", docker, "--tag", "quietscope-check", "."
        ),
    }
    told, failed = {}, False
    for name, check in checks.items():
        try:
            told[name] = f"ok: {check().strip().splitlines()[-1:] or ''}"
        except NotRunError as why:
            told[name] = f"not run: {why}"
        except Exception as error:
            missing = any(word in str(error) for word in OUT_OF_REACH)
            told[name] = f"not run: {error}" if missing else f"FAILED: {error}"
            failed |= not missing
        print(f"{name}: {told[name]}", flush=True)
    results = HERE / "results" / "recipes.json"
    results.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    sys.exit(failed)


if __name__ == "__main__":
    main()
