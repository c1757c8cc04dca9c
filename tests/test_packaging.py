"""What the recipes repeat is what the product says: one version, and every requirement."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

PACKAGING = Path(__file__).parents[1] / "packaging"


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.mark.parametrize("check", ["versions", "conda_requirements"])
def test_the_recipes_say_what_the_product_says(check):
    pytest.importorskip("yaml")
    assert getattr(module(PACKAGING / "check_recipes.py"), check)()


def test_the_start_menu_calls_commands_that_are_there():
    menu = json.loads((PACKAGING / "windows" / "quietscope_menu.json").read_text("utf-8"))
    icons = {item["icon"] for item in menu["menu_items"]}
    assert icons == {"{{ MENU_DIR }}/quietscope.{{ ICON_EXT }}"}
    assert all(item["platforms"] for item in menu["menu_items"])


def test_every_page_of_the_site_that_is_named_is_there():
    yaml = pytest.importorskip("yaml")
    pytest.importorskip("mkdocs")
    text = (PACKAGING.parent / "mkdocs.yml").read_text("utf-8")
    sections = yaml.safe_load(text)["extra"]["sections"]
    made = set(module(PACKAGING / "site" / "pages.py").MADE_FROM)
    docs = PACKAGING.parent / "docs"
    for page in (page for pages in sections.values() for page in pages):
        assert page in made or page.startswith("reference/") or (docs / page).is_file(), page
