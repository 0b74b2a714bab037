"""`moreie serve`: the HTTP service and the evidence page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moreie.cli.console import clear_errors

EXAMPLES = """[bold]Examples[/]

moreie serve --corpus wiki --port 8000

curl -s localhost:8000/v1/extract -H 'content-type: application/json' -d '{"text": "Messi joins Barcelona"}'
"""


def serve(
    model: Annotated[Path | None, typer.Option(help="Model folder \\[default: the shipped model].")] = None,
    corpus: Annotated[str | None, typer.Option(help="Corpus folder or URI \\[default: the demo corpus].")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
) -> None:
    """Serve extraction over HTTP, with a page to try it at /."""
    with clear_errors():
        from moreie.errors import MissingExtraError

        try:
            import uvicorn

            from moreie.serving.service import create_app
        except ModuleNotFoundError as problem:
            raise MissingExtraError("serve", "moreie serve") from problem
        from moreie.extractor import Extractor

        uvicorn.run(create_app(Extractor.from_pretrained(model, corpus=corpus)), host=host, port=port)
