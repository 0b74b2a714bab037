"""What clients send, as JSON or as multipart forms, checked."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from fastapi import HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError

from moreie.serving.limits import BATCH_LIMIT, ID_LIMIT, TEXT_LIMIT
from moreie.serving.uploads import read_upload

M = TypeVar("M", bound=BaseModel)
JSON, FORM = "application/json", "multipart/form-data"
Text = Annotated[str, Field(max_length=TEXT_LIMIT)]


class AttachedTexts(RootModel[dict[str, Text]]):
    """Texts that belong to a post, by the name of the evidence that an expert reads, such as `caption`."""


class PostBody(BaseModel):
    """A post without a picture; pictures come as multipart forms."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"text": "Messi joins Barcelona"}]})
    text: Text
    id: str = Field("post", max_length=ID_LIMIT)


class BatchPost(PostBody):
    attached: AttachedTexts = AttachedTexts({})
    link: bool = Field(False, description="Say which article of the corpus each mention refers to (`link`).")


class ExtractBody(BatchPost):
    attribute: bool = Field(False, description="Say what each passage does for each answer (`influences`).")


class BatchBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    posts: list[BatchPost] = Field(min_length=1, max_length=BATCH_LIMIT)


class ExtractForm(BaseModel):
    """The fields of a multipart form. `attached` is JSON."""

    model_config = ConfigDict(extra="forbid")
    text: Text = ""
    id: str = Field("post", max_length=ID_LIMIT)
    attached: str = "{}"
    attribute: Literal["true", "false"] = "false"
    link: Literal["true", "false"] = "false"
    image: bytes | None = Field(None, json_schema_extra={"format": "binary"})


class RetrieveForm(BaseModel):
    model_config = ConfigDict(extra="forbid")
    text: Text = ""
    id: str = Field("post", max_length=ID_LIMIT)
    image: bytes | None = Field(None, json_schema_extra={"format": "binary"})


def content_type(request: Request) -> str:
    """The media type of a request, bare."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def json_body(request: Request, kind: type[M]) -> M:
    """The body as JSON of this form.

    Raises:
        HTTPException: 415 for another content type, 422 for another form.
    """
    if content_type(request) != JSON:
        raise HTTPException(415, f"send {JSON}")
    return parsed(kind, await request.body())


def parsed(kind: type[M], body: bytes) -> M:
    """JSON of this form, its types as they are written. Raises `HTTPException` 422; what was sent is not in it."""
    try:
        return kind.model_validate_json(body, strict=True)
    except ValidationError as problem:
        raise refused(problem) from None


def refused(problem: ValidationError) -> HTTPException:
    """What is wrong with a body, place by place."""
    return HTTPException(422, problem.errors(include_url=False, include_context=False, include_input=False))


async def form_body(request: Request, kind: type[M]) -> tuple[M, bytes | None, str]:
    """A multipart form of this kind, with the bytes and the bare name of its picture.

    Raises:
        HTTPException: 400 where it is no multipart form, 422 for other fields, or a field where a file is expected.
    """
    async with request.form(max_files=1, max_fields=8) as form:
        fields: dict[str, Any] = {}
        data, name = None, ""
        for key, value in form.multi_items():
            if key == "image" and not isinstance(value, str):
                data, name = await read_upload(value)
            elif not isinstance(value, str) or key == "image":
                raise HTTPException(422, "image must be a file, every other field a text")
            elif key in fields:
                raise HTTPException(422, f"the field {key!r} comes twice")
            else:
                fields[key] = value
    try:
        return kind.model_validate(fields), data, name
    except ValidationError as problem:
        raise refused(problem) from None
