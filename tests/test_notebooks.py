"""The notebooks run from top to bottom, each in under a minute, and are kept without outputs."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "docs" / "notebooks").glob("*.ipynb"))
AT_MOST_CPU_S = 60.0


def children_seconds() -> float:
    used = os.times()
    return used.children_user + used.children_system


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")  # Jupyter's own
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path):
    client, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    notebook = nbformat.read(path, as_version=4)
    before, began = children_seconds(), time.monotonic()
    client.NotebookClient(
        notebook, timeout=500, resources={"metadata": {"path": tmp_path}}
    ).execute()
    assert children_seconds() - before < AT_MOST_CPU_S, f"{time.monotonic() - began:.0f} s"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_without_outputs(path):
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert all(line == line.rstrip() for cell in code for line in cell.source.splitlines())
