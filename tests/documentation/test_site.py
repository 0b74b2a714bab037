"""The site as a reader gets it: built strictly by the real program, whole, and without a network."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
# What a browser fetches by itself when it shows a page.
FETCHED = re.compile(
    r"<(?:script|img|iframe|source|embed)\b[^>]*\bsrc=\"([^\"]+)\"|<link\b([^>]*)>|@import|url\(([^)]+)\)"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it: a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert not re.findall(r"^WARNING.*$", done.stderr, re.MULTILINE)
    return folder


@pytest.mark.slow
def test_pages_fetch_nothing_from_elsewhere(site: Path) -> None:
    pages = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(pages) > 30
    for page in pages:
        for source, attributes, style in FETCHED.findall(page.read_text(encoding="utf-8")):
            link = re.search(r"href=\"([^\"]+)\"", attributes)
            target = source or style.strip("\"'") or (link[1] if link else "")
            assert not re.match(r"(?:https?:)?//", target), (page.name, target)


@pytest.mark.slow
def test_formulas_are_shown_without_scripts(site: Path) -> None:
    page = (site / "method.html").read_text(encoding="utf-8")
    formulas = re.findall(r"<math\b.*?</math>", page, re.DOTALL)
    assert len(formulas) > 30
    assert not [formula for formula in formulas if "\\" in formula or "<merror" in formula]
    assert "arithmatex" not in page


@pytest.mark.slow
def test_every_command_is_in_the_reference(site: Path) -> None:
    import typer

    from moreie.cli.app import app

    page = (site / "commands.html").read_text(encoding="utf-8")
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        for inner in getattr(command, "commands", {"": None}):
            assert f"moreie {name} {inner}".strip() in page
    assert "[bold]" not in page
    assert "default: the shipped model" in page


@pytest.mark.slow
def test_interfaces_and_recipe_fields_are_in_the_reference(site: Path) -> None:
    from moreie.training.recipe import GateRecipe, Optimisation

    assert 'id="moreie.extractor.Extractor.extract_batch"' in (site / "api/extractor.html").read_text(encoding="utf-8")
    recipes = (site / "api/training.html").read_text(encoding="utf-8")
    for section in (Optimisation, GateRecipe):
        for field in section.model_fields:
            assert f'id="moreie.training.recipe.{section.__name__}.{field}"' in recipes


@pytest.mark.slow
def test_the_notebook_was_run_and_an_article_changed_the_answer(site: Path) -> None:
    page = (site / "quickstart.html").read_text(encoding="utf-8")
    assert '<mark class="per">El Greco' in page
    assert "first evidence: Northgate" in page
    said = re.sub(r"<[^>]+>", "", page).replace("&#39;", "'")
    assert re.search(r"\[\]\s+first evidence: (?!Northgate)", said), "nothing is found before the article is there"
    assert re.findall(r"\[\('Northgate', '(\w+)'\)\]", said) == ["ORG"]


def test_notebooks_are_kept_without_outputs() -> None:
    for path in (ROOT / "examples").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert any(cell["cell_type"] == "code" for cell in cells)
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
