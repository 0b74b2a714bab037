"""Pages of the site that are made of files elsewhere in the project, and links that are right on the site too.

README, changelog and the lists of what ships are taken as they are; the commands come from the program, the notebook
is executed. A link between files of the project leads to the page made of its target.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
# Page of the site → the file that it is made of.
MADE_OF = {
    "index.md": "README.md",
    "changelog.md": "CHANGELOG.md",
    "shipped.md": "src/moreie/shipped/README.md",
    "shipped-model.md": "src/moreie/shipped/models/default/README.md",
    "shipped-pictures.md": "src/moreie/shipped/demo/PICTURES.md",
}
NOTEBOOK = "examples/quickstart.ipynb"
LINK = re.compile(r"(?P<before>\]\(|(?:src|href)=\")(?P<target>[^)\s\"#:]+)(?P<after>(?:#[^)\s\"]*)?[)\"])")
FENCE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
EPILOG = re.compile(r"^\[bold\]Examples?\[/\]\n\n(.+?)(?=\n\*\*Commands|\n#|\Z)", re.MULTILINE | re.DOTALL)
COMMANDS = ("moreie ", "curl ", "echo ")


def on_config(config: Any) -> Any:
    """Put the pages of recipes behind the overview of results."""
    recipes = sorted(f"results/{path.name}" for path in (ROOT / "docs" / "results").glob("*.md"))
    for section in config.nav:
        for pages in section.values():
            for place, page in enumerate(pages):
                if page == {"Scores": "results.md"}:
                    pages[place] = {"Scores": [{"All recipes": "results.md"}, *recipes]}
    return config


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    made = {page: (ROOT / source).read_text(encoding="utf-8") for page, source in MADE_OF.items()}
    made |= {"commands.md": commands(), "quickstart.md": notebook_page((ROOT / NOTEBOOK).read_text(encoding="utf-8"))}
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    name = page.file.src_uri
    return with_site_links(markdown, name, MADE_OF.get(name, f"docs/{name}"))


def with_site_links(markdown: str, page: str, source: str) -> str:
    """Markdown whose links from `source` to other files of the project lead from `page` to their pages."""
    pages = {file: made for made, file in MADE_OF.items()} | {NOTEBOOK: "quickstart.md"}

    def turned(link: re.Match[str]) -> str:
        file = os.path.normpath(os.path.join(os.path.dirname(source), link["target"])).replace(os.sep, "/")
        target = pages.get(file, file.removeprefix("docs/") if file.startswith("docs/") else None)
        if target is None:
            return link[0]
        return link["before"] + os.path.relpath(target, os.path.dirname(page) or ".") + link["after"]

    # Code stays as it is written.
    parts = FENCE.split(markdown)
    return "".join(part if place % 2 else LINK.sub(turned, part) for place, part in enumerate(parts))


def commands() -> str:
    """The program's own help as one page, made by `typer … utils docs`."""
    typer = [
        sys.executable,
        "-m",
        "typer",
        "moreie.cli.app",
        "utils",
        "docs",
        "--name",
        "moreie",
        "--title",
        "Commands",
    ]
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*typer, "--name", "moreie", "--title", "Commands"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    return EPILOG.sub(_examples, done.stdout)


def _examples(epilog: re.Match[str]) -> str:
    shown = ["**Examples**:", ""]
    for line in filter(None, epilog[1].splitlines()):
        shown += ["```console", f"$ {line}", "```", ""] if line.startswith(COMMANDS) else [line, ""]
    return "\n".join(shown).replace("```\n\n```console\n", "") + "\n"


def executed(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with the outputs of a real run in the folder of the examples.

    Raises:
        CellExecutionError: a cell fails.
    """
    resources = {"metadata": {"path": str((ROOT / NOTEBOOK).parent)}}
    NotebookClient(notebook, kernel_name="python3", startup_timeout=300, timeout=600, resources=resources).execute()
    return notebook


@cache
def notebook_page(text: str) -> str:
    """Markdown of a notebook that is executed for it: cells as code, what they show below them.

    While `mkdocs serve` watches the pages it is executed again only if it has changed.
    """
    parts: list[str] = []
    for cell in executed(nbformat.reads(text, as_version=4)).cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        elif cell.cell_type == "code":
            parts += [f"```python\n{cell.source}\n```", *(_shown(output) for output in cell.outputs)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _shown(output: nbformat.NotebookNode) -> str:
    if output.output_type == "stream":
        return f"```text\n{output.text.rstrip()}\n```" if output.name == "stdout" else ""
    if html := output.data.get("text/html"):
        # An empty line would end the block of HTML.
        return "<div>" + re.sub(r"\n\s*\n", "\n", html) + "</div>"
    return f"```text\n{output.data['text/plain']}\n```"
