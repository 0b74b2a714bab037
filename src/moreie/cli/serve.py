"""`moreie serve`: the HTTP service and the evidence page."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moreie.cli.console import clear_errors
from moreie.cli.loading import check_asked, load_extractor

if TYPE_CHECKING:
    from moreie.extractor import Extractor

EXAMPLES = """[bold]Examples[/]

moreie serve --corpus wiki --port 8000

curl -s localhost:8000/v1/extract -H 'content-type: application/json' -d '{"text": "Messi joins Barcelona"}'

echo "write $(openssl rand -hex 32)" > tokens && moreie serve --corpus wiki --token-file tokens

moreie serve --host 0.0.0.0 --corpus milvus://milvus:19530/wiki --queue-size 512 --batch-size 32 --time-limit 20

moreie serve --corpus wiki --int8 --certainty 0.9

moreie serve --corpus wiki --cors-origin https://app.example --log-format text
"""


class LogForm(str, Enum):
    json = "json"
    text = "text"


def serve(
    model: Annotated[Path | None, typer.Option(help="Model folder \\[default: the shipped model].")] = None,
    corpus: Annotated[str | None, typer.Option(help="Corpus folder or URI \\[default: the demo corpus].")] = None,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Compute in 8 bits on a processor: faster, not quite the same answers. The model's name then says "
            "`(int8)`, at /ready too.",
        ),
    ] = False,
    certainty: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Read evidence only for posts and pairs of which the expert without evidence is less sure than this "
            "(0.9, for example). The model's name then says so \\[default: always].",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="How probable an entity has to be: lower finds more, higher errs less. The model's name then says so "
            "\\[default: the model's own, where F1 is expected to be highest].",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="MOREIE_TOKEN_FILE",
            help="Lines `read TOKEN` and `write TOKEN`; MOREIE_TOKENS may hold such lines too. Without a write token "
            "knowledge cannot be changed; without a read token anybody may read.",
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(help="Web origin whose pages may call the service (repeatable) \\[default: none]."),
    ] = None,
    queue_size: Annotated[int, typer.Option(help="Posts that may wait; more are answered 503.")] = 256,
    batch_size: Annotated[int, typer.Option(help="Posts of several clients extracted together; 1 for none.")] = 16,
    batch_wait: Annotated[
        float, typer.Option(help="Milliseconds that a post waits for others, if there have been any lately.")
    ] = 5.0,
    time_limit: Annotated[float, typer.Option(help="Seconds from a request to its answer; then 504.")] = 60.0,
    grace: Annotated[
        float | None, typer.Option(min=0, help="Seconds for running requests after SIGTERM \\[default: --time-limit].")
    ] = None,
    log_format: Annotated[LogForm, typer.Option(help="Log lines on stderr.")] = LogForm.json,
) -> None:
    """Serve extraction over HTTP, with a page to try it at /, and the API's description at /docs."""
    with clear_errors():
        import os

        from moreie.errors import MissingExtraError

        try:
            from moreie.serving.server import run
            from moreie.serving.service import create_app
        except ModuleNotFoundError as problem:
            raise MissingExtraError("serve", "moreie serve") from problem
        from moreie.serving.logs import log_to_stderr
        from moreie.serving.settings import ServiceSettings
        from moreie.serving.tokens import read_tokens

        settings = ServiceSettings(
            batch_size=batch_size,
            batch_wait=batch_wait / 1000,
            queue_size=queue_size,
            time_limit=time_limit,
            tokens=read_tokens(token_file, os.environ.get("MOREIE_TOKENS")),
            cors_origins=tuple(cors_origin or ()),
        )
        check_asked(certainty, threshold)
        log_to_stderr("json" if log_format is LogForm.json else "text")
        app = create_app(lambda: _loaded(model, corpus, int8=int8, certainty=certainty, threshold=threshold), settings)
        run(app, host=host, port=port, grace=grace)


def _loaded(
    model: Path | None, corpus: str | None, *, int8: bool, certainty: float | None, threshold: float | None
) -> Extractor:
    import logging

    extractor = load_extractor(model, corpus, certainty=certainty, threshold=threshold)
    if not int8:
        return extractor
    logging.getLogger("moreie.serving").info("bringing the encoders into 8 bits")
    return extractor.quantized()
