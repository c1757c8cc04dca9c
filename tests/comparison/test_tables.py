"""What the documents say was measured is what is stored."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("document", ["docs/compare.md", "docs/training.md"])
def test_tables_are_those_of_the_stored_results(tmp_path, document):
    written = (ROOT / document).read_text(encoding="utf-8")
    copy = tmp_path / "page.md"
    copy.write_text(written, encoding="utf-8")
    script = ROOT / "benchmarks" / "comparison_tables.py"
    subprocess.run([sys.executable, script, "--into", copy], check=True, timeout=60)
    assert copy.read_text(encoding="utf-8") == written, (
        f"results have changed: python benchmarks/comparison_tables.py --into {document}"
    )
    assert written.count("<!-- table ") == written.count("<!-- end of table -->") > 0
