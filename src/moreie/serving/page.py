"""The page at `/`: paste a text, choose a picture, see the answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, File, Form, UploadFile
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool

from moreie.datasets import post_from_text
from moreie.extractor import Extractor
from moreie.rendering.html import Shown, page
from moreie.serving.limits import TEXT_LIMIT
from moreie.serving.uploads import picture_file, read_upload, renamed


def page_routes(extractor: Extractor) -> APIRouter:
    """The routes of the page over one extractor."""
    router = APIRouter()
    form = Environment(loader=PackageLoader("moreie.serving"), autoescape=True, undefined=StrictUndefined)

    @router.get("/", response_class=HTMLResponse)
    def start() -> str:
        return form.get_template("form.html.j2").render(text="", answer="")

    @router.post("/", response_class=HTMLResponse)
    async def answer(
        text: Annotated[str, Form(max_length=TEXT_LIMIT)] = "", image: Annotated[UploadFile | None, File()] = None
    ) -> str:
        data, name = await read_upload(image)
        with picture_file(data) as path:
            extraction = await run_in_threadpool(extractor.extract, post_from_text(text, id="post", image=path))
            extraction = replace(extraction, warnings=renamed(extraction, path, name))
            shown = page([Shown(extraction)], extractor.corpus, title="Your post")
        return form.get_template("form.html.j2").render(text=text, answer=shown)

    return router
