"""The forms of answers, for the API's description; the answers themselves are written by `schema`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class LinkAnswer(BaseModel):
    """The article that a mention refers to; all but `score` are null where it is none of the corpus' articles."""

    article: str | None
    title: str | None
    url: str | None
    score: float


class MentionAnswer(BaseModel):
    """A mention; `link` only where links were asked for."""

    text: str
    type: str | None
    start: int
    end: int
    confidence: float
    link: LinkAnswer | None = None


class RelationAnswer(BaseModel):
    head: int
    tail: int
    type: str
    confidence: float


class EvidenceAnswer(BaseModel):
    retriever: str
    rank: int
    score: float
    article: str
    title: str
    url: str | None
    sentence: str | None
    text: str
    image: str | None


class GateAnswer(BaseModel):
    entities: dict[str, float]
    relations: dict[str, float]


class InfluenceAnswer(BaseModel):
    evidence: int
    mention: int | None
    relation: int | None
    change: float


class ExtractionAnswer(BaseModel):
    """An extraction; `influences` only with `attribute`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "schema": 1,
                    "id": "post",
                    "text": "Messi joins Barcelona",
                    "image": None,
                    "mentions": [{"text": "Messi", "type": "PER", "start": 0, "end": 5, "confidence": 0.99}],
                    "relations": [],
                    "evidence": [],
                    "gate": {"entities": {"plain": 0.6, "text": 0.4}, "relations": {}},
                    "warnings": ["no picture"],
                    "model": "default",
                    "corpus": "wiki@0f3c5d7a9b1e.4",
                }
            ]
        }
    )
    schema_: int = Field(alias="schema")
    id: str
    text: str
    image: str | None
    mentions: list[MentionAnswer]
    relations: list[RelationAnswer]
    evidence: list[EvidenceAnswer]
    gate: GateAnswer
    warnings: list[str]
    model: str
    corpus: str | None
    influences: list[InfluenceAnswer] = []


class BatchAnswer(BaseModel):
    extractions: list[ExtractionAnswer]


class RetrieveAnswer(BaseModel):
    evidence: list[EvidenceAnswer]
    warnings: list[str]


class ChangeAnswer(BaseModel):
    """What a change did, and the size and version of the corpus after it."""

    added: int
    replaced: int
    removed: int
    skipped: list[str]
    articles: int
    passages: int
    corpus: str


class HealthAnswer(BaseModel):
    status: str
    model: str | None
    corpus: str | None
    version: str


class Refusal(BaseModel):
    """Why there is no other answer: words, or for a malformed body a list of places and words."""

    detail: str | list[dict[str, Any]]


_MEANINGS = {
    400: "the body is cut off or malformed",
    401: "a token is needed, or this one is unknown",
    403: "the token has no right to this, or knowledge cannot be changed here",
    404: "not there",
    408: "the body did not come in time",
    409: "not possible in the state of the corpus, or another change is under way",
    411: "a body without a declared length",
    413: "the body is too large",
    415: "the content type is not taken",
    422: "the body has another form",
    500: "something went wrong in the service",
    503: "loading, draining, or too much waits; Retry-After says when to come again",
    504: "no answer within the time limit",
}
EVERYWHERE = (401, 408, 413, 500, 503, 504)


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Documented refusals: those of every route, and these."""
    return {status: {"model": Refusal, "description": _MEANINGS[status]} for status in sorted({*EVERYWHERE, *statuses})}
