"""What users and knowledge wrote is shown as text, never run."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import regex
from rich.console import Console

from moreie.extractor import Extractor
from moreie.rendering.html import Shown, fragment, highlighted, notebook_html, page
from moreie.rendering.terminal import render
from moreie.schema import Evidence, Extraction, GateWeights, LinkedArticle, Mention, Passage, Relation
from moreie.shipped import DEMO_POSTS

EVIL = "<script>alert(1)</script> & \"Obama\" in <b onmouseover='x'>Paris</b> [red]markup[/red]"


def extraction(**change: object) -> Extraction:
    start = EVIL.index("Obama")
    paris = EVIL.index("Paris")
    passage = Passage(
        id="1", article_id="1", title="<img src=x>", text=EVIL, introduction=True, sentence=EVIL, url="javascript:x()"
    )
    content = {
        "id": "<i>id</i>",
        "text": EVIL,
        "mentions": (
            Mention("PER", 0, 0, start, start + 5, 0.9),
            Mention("LOC", 1, 1, paris, paris + 5, 0.8),
        ),
        "relations": (Relation(0, 1, "/per/loc/place_of_residence", 0.7),),
        "evidence": (Evidence(passage, "text", 1, 3.5),),
        "gate": GateWeights({"text": 0.6, "image": 0.4}),
        "warnings": ("<b>careful</b>",),
        "model": "m",
        "corpus": None,
        **change,
    }
    return Extraction(**content)  # type: ignore[arg-type]


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def test_everything_foreign_is_escaped() -> None:
    html = page([Shown(extraction(), note="<u>note</u>")], None, title="<title>")
    parsed = Tags()
    parsed.feed(html)
    assert "script" not in parsed.tags
    assert not {"u", "i"} & set(parsed.tags[: parsed.tags.index("mark")])
    assert not [name for name, _ in parsed.attributes if name.startswith("on")]
    assert "javascript:" not in html
    assert "<img src=x>" not in html


def test_mentions_are_marked_in_place() -> None:
    marked = str(highlighted(extraction()))
    assert '<mark class="per">Obama<small>PER 0.90</small></mark>' in marked
    assert '<mark class="loc">Paris<small>LOC 0.80</small></mark>' in marked
    assert "&lt;script&gt;" in marked


def test_the_page_carries_its_pictures(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (900, 600), "teal").save(tmp_path / "p.png")
    html = page([Shown(extraction(image=tmp_path / "p.png"))], None, title="t")
    assert "data:image/jpeg;base64," in html
    assert str(tmp_path) not in html
    missing = page([Shown(extraction(image=tmp_path / "gone.png"))], None, title="t")
    assert "data:image" not in missing


def test_the_terminal_shows_text_as_it_is() -> None:
    console = Console(record=True, width=200, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render(extraction()))
    shown = console.export_text()
    assert "[red]markup[/red]" in shown
    assert "Obama PER 0.90" in shown
    assert "/per/loc/place_of_residence" in shown
    assert "0.60" in shown
    assert "careful" in shown


def test_a_fragment_escapes_what_is_foreign_and_styles_only_itself() -> None:
    html = fragment(extraction(), None)
    parsed = Tags()
    parsed.feed(html)
    assert "script" not in parsed.tags
    assert not {"html", "body", "head"} & set(parsed.tags), "it stands inside another page"
    style = html[html.index("<style>") + 7 : html.index("</style>")]
    selectors = regex.findall(r"(?:^|[{}])\s*([^@{}\s][^{}]*?)\s*\{", style)
    assert selectors
    assert all(part.strip().startswith(".moreie") for s in selectors for part in s.split(","))


def test_a_notebook_shows_evidence_with_pictures_of_the_corpus(extractor: Extractor) -> None:
    found = extractor.extract(
        "Stood in front of The Heart of the Andes", image=DEMO_POSTS.parent / "pictures/andes.jpg"
    )
    assert any(e.passage.image for e in found.evidence)
    html = found._repr_html_()
    assert html == notebook_html(found)
    assert html.count("data:image/jpeg;base64,") >= 2, "the post's picture, and one of the evidence"
    gone = replace(found, corpus="/nowhere/corpus@1")
    assert "evidence is shown without its pictures" in gone._repr_html_()


def test_the_article_of_a_mention_is_shown_as_text() -> None:
    linked = (
        LinkedArticle("1", "<img src=x onerror=alert(1)>", 'https://example.org/?a="><script>', 0.91),
        LinkedArticle("2", "Paris", "javascript:alert(1)", 0.8),
    )
    own = extraction()
    shown = replace(own, mentions=tuple(replace(m, linked=a) for m, a in zip(own.mentions, linked, strict=True)))
    parsed = Tags()
    parsed.feed(str(highlighted(shown)))
    assert {*parsed.tags} == {"mark", "small", "a"}
    assert ("href", 'https://example.org/?a="><script>') in parsed.attributes
    assert not any("javascript" in (value or "") for _, value in parsed.attributes)
    assert "Paris 0.80" in highlighted(shown)
    nothing = replace(
        own, mentions=tuple(replace(m, linked=LinkedArticle(None, None, None, 1.0)) for m in own.mentions)
    )
    assert highlighted(nothing).count("no article 1.00") == 2
    console = Console(record=True, width=200)
    console.print(render(shown))
    assert "= <img src=x onerror=alert(1)> 0.91" in console.export_text()
