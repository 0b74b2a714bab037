"""A visit of the page: a real browser, a real server process, the real model, a corpus that is changed."""

from __future__ import annotations

import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium", reason="selenium is not installed (the dev extra has it)")

import httpx
import uvicorn
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from moreie import Extractor
from moreie.serving.service import create_app
from moreie.shipped import DEMO_POSTS
from moreie.training.recipe import Recipe
from moreie.training.run import seed_folder

pytestmark = pytest.mark.slow
PATIENCE = 240
PICTURES = DEMO_POSTS.parent / "pictures"
AXE = Path(__file__).parent / "axe-core" / "axe.min.js"
TOKEN = "a-token-of-the-tests-0123456789"
FINAL = "Halden beats Orsova in the final"
PLAYER = (
    "Halden is a Norwegian tennis player who won the Oslo Open. Halden beats her rivals in the final with her serve."
)
EVIL = '<img src=x onerror="window.harmed=1"><script>window.harmed=2</script> Barack Obama in </textarea><b>Berlin</b>'


class Visitor:
    """A browser with the page open, and what a visitor does with it."""

    def __init__(self, driver: Any, address: str):
        self.driver, self.address = driver, address
        self.open()

    def open(self) -> None:
        self.driver.get(self.address)
        self.until(lambda: len(self.all("#examples .example")) == 10)

    def until(self, done: Callable[[], Any]) -> Any:
        return WebDriverWait(self.driver, PATIENCE, 0.1).until(lambda _: done())

    def one(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def texts(self, selector: str) -> list[str]:
        return self.run("return [...document.querySelectorAll(arguments[0])].map(e => e.textContent.trim())", selector)

    def answered(self) -> None:
        """Wait for an answer that is newer than the last mark."""
        self.until(lambda: self.all("#answer:not([data-seen])"))
        self.run("document.getElementById('answer').dataset.seen = 'yes'")

    def explained(self) -> None:
        self.until(lambda: not self.all("#influence-status"))
        self.linked()

    def linked(self) -> list[tuple[str, str]]:
        """Wait for the articles that mentions refer to: mention and article, as they are read."""
        self.until(lambda: self.all("#links") or not self.all("#links-status"))
        names = self.texts("#links dt")
        return list(zip(names, self.texts("#links dd"), strict=True))

    def unfold(self) -> None:
        self.run("document.querySelectorAll('details').forEach(d => d.open = true)")

    def ask(self, text: str, picture: Path | None = None) -> None:
        self.one("#text").clear()
        self.one("#text").send_keys(text)
        if picture:
            self.one("#image").send_keys(str(picture))
        self.one("#extract").click()
        self.answered()

    def marked(self, within: str = "#answer") -> list[tuple[str, str]]:
        """Text and type of the marks of an answer."""
        rows = self.run(
            "return [...document.querySelectorAll(arguments[0] + ' mark')].map("
            "m => [m.firstChild.textContent, m.querySelector('.tag').firstChild.textContent.trim()])",
            within,
        )
        return [(text, type) for text, type in rows]

    def write(self, title: str, text: str, token: str | None) -> None:
        """Fill in the dialogue that is open, its first paragraph, and save."""
        for selector, value in (("#article-title", title), ("#paragraphs textarea", text)):
            self.one(selector).clear()
            self.one(selector).send_keys(value)
        if token is not None:
            self.one("#token").send_keys(token)
        self.one("#save").click()

    def complaints(self) -> list[str]:
        """What the browser's console has against the page."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def visitor(server: Any, start_browser: Callable[[int, int], Any]) -> Visitor:
    return Visitor(start_browser(1280, 900), server.address)


@pytest.fixture(scope="module")
def phone(server: Any, start_browser: Callable[[int, int], Any]) -> Visitor:
    return Visitor(start_browser(360, 740), server.address)


def test_an_example_is_one_click_away(visitor: Visitor, server: Any) -> None:
    assert server.call("GET", "/page/state")["editing"] == "on"
    visitor.one("[data-id=andes]").click()
    visitor.answered()
    assert ("Frederic Edwin Church", "PER") in visitor.marked()
    assert "entities" in visitor.one("#status").text
    assert visitor.driver.switch_to.active_element.get_attribute("id") == "answer-heading"
    assert visitor.one("#answer .photograph").get_property("naturalWidth") > 0
    # The graph: a node for each mention that is joined, a line from head to label and one with an arrow to the tail.
    visitor.until(lambda: visitor.all(".graph"))
    relations = visitor.texts(".canvas + ul li")
    assert relations
    assert len(visitor.all(".graph .relation")) == len(relations)
    assert len(visitor.all(".graph .line[marker-end]")) == len(relations)
    # Evidence: by text and, with its picture, by the photograph.
    images = visitor.all(".piece.pictured img")
    visitor.unfold()
    visitor.run("arguments[0].scrollIntoView()", images[0])
    visitor.until(lambda: images[0].get_property("naturalWidth") > 0)
    assert "The Heart of the Andes" in visitor.texts(".piece.pictured h4")[0]
    assert "BM25" in visitor.texts(".piece:not(.pictured) .score")[0]
    visitor.explained()
    moves = visitor.texts("#influence .moves li")
    assert moves
    assert visitor.texts(".piece .influences li"), "cards say what they do, too"
    visitor.one("#influence .moves a").click()
    assert (visitor.driver.switch_to.active_element.get_attribute("id") or "").startswith("evidence-")
    assert visitor.complaints() == []


def test_each_experts_answer_stands_beside_the_mixtures(visitor: Visitor, server: Any) -> None:
    entities, relations = visitor.all("table.experts")
    assert entities.find_element(By.TAG_NAME, "caption").text == "Entities"
    names = [h.text for h in entities.find_elements(By.CSS_SELECTOR, "tbody th")]
    assert names == ["mixture", "baseline", "text", "image"]
    weights = [float(w.text.rstrip("%")) for w in entities.find_elements(By.CSS_SELECTOR, ".weight .number")]
    assert sum(weights) == pytest.approx(100, abs=2)
    bars = [b.size["width"] for b in entities.find_elements(By.CSS_SELECTOR, ".bar span")]
    assert sorted(range(3), key=lambda i: bars[i]) == sorted(range(3), key=lambda i: weights[i])
    assert relations.find_elements(By.CSS_SELECTOR, "tbody tr")
    # A post without a picture: the image expert has nothing to read, and the page says so.
    visitor.one("[data-id=no-picture]").click()
    visitor.answered()
    assert "had nothing to read" in visitor.texts("table.experts .quiet")
    assert not visitor.one("#preview").is_displayed()


def test_each_mention_says_which_article_it_refers_to(visitor: Visitor, server: Any) -> None:
    text = "Barack Obama meets Zorblax in Berlin"
    article = {"title": "Zorblax", "text": "Zorblax is a statesman.", "url": "https://a.example/z"}
    server.call("PUT", "/v1/knowledge/z1", article)
    visitor.open()
    visitor.ask(text)
    shown = visitor.linked()
    said = server.call("POST", "/v1/extract", {"text": text, "link": True})["mentions"]
    assert shown == [
        (f"{m['text']} {m['type']}", f"{m['link']['title'] or 'no article'} {100 * m['link']['score']:.0f}%")
        for m in said
    ]
    assert any(name.startswith("Zorblax") and title.startswith("Zorblax") for name, title in shown)
    assert "refer to" in visitor.one("#links-heading").text
    status = visitor.one("#links-status")
    assert status.get_attribute("role") == "status"
    linked = sum(m["link"]["article"] is not None for m in said)
    assert status.text.startswith(f"{linked} of {len(said)} ")
    # By keyboard: from the heading that has the focus the first link is one key away.
    assert visitor.driver.switch_to.active_element.get_attribute("id") == "answer-heading"
    visitor.driver.switch_to.active_element.send_keys(Keys.TAB)
    links = visitor.all("#links a")
    assert visitor.driver.switch_to.active_element == links[0]
    assert [a.get_attribute("href") for a in links] == [m["link"]["url"] for m in said if m["link"]["url"]]
    assert all(a.get_attribute("rel") == "noopener noreferrer" for a in links)
    # Removed meanwhile: nothing is left to refer to.
    server.call("DELETE", "/v1/knowledge/z1")
    visitor.ask(text)
    (title,) = [title for name, title in visitor.linked() if name.startswith("Zorblax")]
    assert title.startswith("no article ")
    assert visitor.complaints() == []


def test_ones_own_text_and_photograph(visitor: Visitor) -> None:
    visitor.open()
    visitor.ask("😀😀 Barack Obama looks at a painting by El Greco", PICTURES / "toledo.jpg")
    assert ("Barack Obama", "PER") in visitor.marked(), "offsets count code points"
    assert visitor.texts(".piece.pictured h4")[0].endswith("View of Toledo")
    assert visitor.one("#photo-name").text == "toledo.jpg"
    visitor.one("#no-image").click()
    visitor.one("#extract").click()
    visitor.answered()
    assert not visitor.all(".piece.pictured")
    assert "no picture" in visitor.texts(".notes li")


def test_what_cannot_be_asked_is_said_and_nothing_is_lost(visitor: Visitor, tmp_path: Path) -> None:
    visitor.open()
    visitor.one("#extract").click()
    assert "text first" in visitor.one("#error").text
    assert visitor.one("#error").get_attribute("role") == "alert"
    assert visitor.driver.switch_to.active_element.get_attribute("id") == "text"
    broken, huge = tmp_path / "broken.jpg", tmp_path / "huge.jpg"
    broken.write_bytes(b"no picture")
    huge.write_bytes(b"\0" * (21 * 2**20))
    visitor.ask("Barack Obama in Berlin", broken)
    assert any("broken.jpg" in note and "not a picture" in note for note in visitor.texts(".notes li"))
    visitor.one("#image").send_keys(str(huge))
    visitor.one("#extract").click()
    assert "20 MiB" in visitor.one("#error").text
    visitor.one("#no-image").click()
    visitor.driver.set_network_conditions(offline=True, latency=0, throughput=0)
    visitor.one("#extract").click()
    visitor.until(lambda: "does not answer" in visitor.one("#error").text)
    assert visitor.one("#text").get_property("value") == "Barack Obama in Berlin"
    assert visitor.marked() != [], "the last answer stays"
    visitor.driver.delete_network_conditions()
    visitor.one("#extract").click()
    visitor.answered()
    assert visitor.one("#error").text == ""


def test_the_keyboard_is_enough(visitor: Visitor) -> None:
    visitor.open()

    def press(*keys: str) -> Any:
        for key in keys:
            visitor.driver.switch_to.active_element.send_keys(key)
        return visitor.driver.switch_to.active_element

    def tab_to(selector: str) -> Any:
        for _ in range(60):
            if press(Keys.TAB) == visitor.one(selector):
                return visitor.one(selector)
        raise AssertionError(f"{selector} is not reached by Tab")

    visitor.one("body").send_keys(Keys.TAB)
    assert visitor.driver.switch_to.active_element.text == "Skip to the post"
    tab_to("#text").send_keys("Kawhi Leonard leads the Toronto Raptors")
    visitor.driver.switch_to.active_element.send_keys(Keys.CONTROL, Keys.ENTER)
    visitor.answered()
    assert visitor.driver.switch_to.active_element.get_attribute("id") == "answer-heading"
    button = tab_to(".piece .edit")
    outline = visitor.run("return getComputedStyle(arguments[0]).outlineWidth", button)
    assert outline == "3px", "where one is can be seen"
    press(Keys.ENTER)
    visitor.until(lambda: visitor.one("#editor").get_property("open"))
    assert visitor.driver.switch_to.active_element.tag_name == "textarea"
    press(Keys.ESCAPE)
    visitor.until(lambda: not visitor.one("#editor").get_property("open"))
    assert visitor.driver.switch_to.active_element == button
    # An example by Enter.
    tab = visitor.one("[data-id=no-picture]")
    visitor.run("arguments[0].focus()", tab)
    press(Keys.ENTER)
    visitor.answered()
    assert ("Angela Merkel", "PER") in visitor.marked()


def assert_same_mentions(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Up to rounding: a post that is read beside another's has other sums."""
    assert [m | {"confidence": 0} for m in one["mentions"]] == [m | {"confidence": 0} for m in other["mentions"]]
    expected = [m["confidence"] for m in other["mentions"]]
    assert [m["confidence"] for m in one["mentions"]] == pytest.approx(expected, abs=1e-5)


def test_knowledge_is_edited_and_the_answer_changes(visitor: Visitor, server: Any) -> None:
    visitor.open()
    visitor.ask(FINAL)
    before = server.call("POST", "/v1/extract", {"text": FINAL})
    visitor.one("#add").click()
    visitor.write("", PLAYER, TOKEN)
    assert "title" in visitor.one("#editor-error").text
    # A wrong token: refused, said, and the text stays.
    visitor.write("Halden", PLAYER, " a wrong one")
    visitor.until(lambda: "refused" in visitor.one("#editor-error").text)
    assert visitor.one("#editor").get_property("open")
    assert visitor.one("#paragraphs textarea").get_property("value") == PLAYER
    assert visitor.driver.switch_to.active_element.get_attribute("id") == "token"
    visitor.one("#token").send_keys(TOKEN)
    visitor.one("#save").click()
    visitor.answered()
    after = server.call("POST", "/v1/extract", {"text": FINAL})
    assert [e["title"] for e in after["evidence"]] != [e["title"] for e in before["evidence"]]
    assert after["evidence"][0]["title"] == "Halden"
    moved = {m["text"]: m["confidence"] for m in after["mentions"]}
    assert any(abs(moved.get(m["text"], 0) - m["confidence"]) > 0.02 for m in before["mentions"])
    assert visitor.driver.switch_to.active_element.get_attribute("id") == "changes-heading"
    assert [h.text for h in visitor.all(".side h3")] == ["Before", "After"]
    rows = visitor.texts("#results .moved tr")
    old, new = (f"{100 * e['mentions'][0]['confidence']:.0f}%" for e in (before, after))
    assert any("Halden" in row and f"{old} → {new}" in row for row in rows)
    assert any("Halden" in row and "new, rank 1" in row for row in rows)

    small = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    visitor.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", small)
    assert visitor.run("return document.documentElement.scrollWidth <= innerWidth"), "on a phone, too"
    visitor.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    # The same article from its card: it opens where the evidence is, and the token is known by now.
    visitor.one("#evidence-0 .edit").click()
    visitor.until(lambda: visitor.one("#editor").get_property("open"))
    assert not visitor.one("#token-field").is_displayed()
    assert visitor.driver.switch_to.active_element.get_property("value") == PLAYER
    visitor.write("Halden", "Halden is a village in Scotland.", None)
    visitor.answered()
    edited = server.call("GET", f"/v1/knowledge/{after['evidence'][0]['article']}")
    assert [p["text"] for p in edited["paragraphs"]] == ["Halden is a village in Scotland."]
    visitor.one("#undo").click()
    visitor.answered()
    again = server.call("POST", "/v1/extract", {"text": FINAL})
    assert_same_mentions(again, after)
    server.call("DELETE", f"/v1/knowledge/{edited['id']}")


def test_an_article_keeps_what_was_not_edited(visitor: Visitor, server: Any) -> None:
    before = server.call("GET", "/v1/knowledge/14239014")
    visitor.open()
    visitor.one("[data-id=andes]").click()
    visitor.answered()
    button = next(b for b in visitor.all(".piece.pictured .edit") if "Heart of the Andes" in b.accessible_name)
    button.click()
    visitor.until(lambda: visitor.one("#editor").get_property("open"))
    area = visitor.driver.switch_to.active_element
    area.send_keys(Keys.CONTROL, Keys.HOME)
    area.send_keys(Keys.NULL, "In 1859: ")
    visitor.one("#token").send_keys(TOKEN)
    visitor.one("#save").click()
    visitor.until(lambda: visitor.all("#changes-heading"))
    after = server.call("GET", "/v1/knowledge/14239014")
    place = next(i for i, p in enumerate(after["paragraphs"]) if p["text"].startswith("In 1859: "))
    old, new = before["paragraphs"].pop(place), after["paragraphs"].pop(place)
    assert new["text"] == "In 1859: " + old["text"]
    assert [(link["start"] - 9, link["end"] - 9, link["target"]) for link in new["links"]] == [
        (link["start"], link["end"], link["target"]) for link in old["links"]
    ]
    assert old["links"]
    assert after == before, "its other paragraphs, its links, pictures and address"
    visitor.answered()
    visitor.one("#undo").click()
    visitor.answered()
    before["paragraphs"].insert(place, old)
    assert server.call("GET", "/v1/knowledge/14239014") == before


def test_an_article_that_somebody_removed_meanwhile(visitor: Visitor, server: Any) -> None:
    server.call("PUT", "/v1/knowledge/gone", {"title": "Halden", "paragraphs": [PLAYER]})
    visitor.open()
    visitor.ask(FINAL)
    server.call("DELETE", "/v1/knowledge/gone")
    visitor.one("#evidence-0 .edit").click()
    visitor.until(lambda: "no article of this id" in visitor.one("#error").text)


def test_markup_in_posts_and_in_knowledge_is_text(visitor: Visitor, server: Any) -> None:
    title = "Zorblax <svg onload=window.harmed=3>"
    text = f"Zorblax {EVIL}"
    server.call(
        "PUT", "/v1/knowledge/evil", {"title": title, "paragraphs": [text], "url": "javascript:window.harmed=4"}
    )
    visitor.open()
    visitor.complaints()
    visitor.ask(f"Zorblax {EVIL}")
    visitor.explained()
    assert "<script>window.harmed=2</script>" in visitor.one("#answer .text").text
    assert any(title in heading for heading in visitor.texts(".piece h4"))
    assert any(text in passage for passage in visitor.texts(".piece .passage"))
    assert not visitor.all("#results script, #results b[onload], #results img[src=x], #results svg[onload]")
    assert not visitor.all("a[href^=javascript]")
    visitor.one("#evidence-0 .edit").click()
    visitor.until(lambda: visitor.one("#editor").get_property("open"))
    assert visitor.one("#paragraphs textarea").get_property("value") == text
    visitor.one("#cancel").click()
    assert visitor.run("return window.harmed") is None
    assert visitor.complaints() == [], "nothing was even tried"
    server.call("DELETE", "/v1/knowledge/evil")
    # The title of an article that a mention is linked to.
    title, url = '<img src=x onerror="window.harmed=5">Zorblax', "javascript:window.harmed=6"
    article = {"title": title, "redirects": ["Zorblax"], "text": "Zorblax is a statesman.", "url": url}
    server.call("PUT", "/v1/knowledge/evil", article)
    visitor.ask("Barack Obama meets Zorblax in Berlin")
    (shown,) = [shown for name, shown in visitor.linked() if name.startswith("Zorblax")]
    assert shown.rpartition(" ")[0] == title
    assert not visitor.all("#results img[src=x], #links img, a[href^=javascript]")
    assert visitor.run("return window.harmed") is None
    assert visitor.complaints() == []
    server.call("DELETE", "/v1/knowledge/evil")


def test_markup_would_be_refused_by_the_browser(visitor: Visitor) -> None:
    refused = visitor.run(
        "try { document.createElement('div').innerHTML = '<b>x</b>'; return false } catch (e) { return e.name }"
    )
    assert refused == "TypeError", "trusted types: not even by mistake"


def test_a_phone(phone: Visitor) -> None:
    def fits() -> bool:
        return bool(phone.run("return document.documentElement.scrollWidth <= innerWidth"))

    assert fits()
    phone.one("[data-id=sobieski]").click()
    phone.answered()
    phone.until(lambda: phone.all(".graph"))
    phone.explained()
    phone.unfold()
    assert fits()
    small = phone.run(
        "return [...document.querySelectorAll('button, summary')].filter(b => b.offsetParent)"
        ".map(b => [b.textContent, b.getBoundingClientRect().height]).filter(([_, h]) => h < 24)"
    )
    assert small == [], "every button is at least 24 px high"
    phone.one(".piece .edit").click()
    phone.until(lambda: phone.one("#editor").get_property("open"))
    assert fits()
    width = phone.run("return document.getElementById('editor').getBoundingClientRect().right")
    assert width <= 360
    phone.one("#cancel").click()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility(visitor: Visitor, phone: Visitor, scheme: str) -> None:
    for one in (visitor, phone):
        media = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        one.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        one.open()
        assert violations(one) == []
        one.one("[data-id=toledo]").click()
        one.answered()
        one.explained()
        one.unfold()
        assert violations(one) == []
        one.one(".piece .edit").click()
        one.until(lambda one=one: one.one("#editor").get_property("open"))
        assert violations(one) == []
        one.one("#cancel").click()
        assert one.run("return getComputedStyle(document.getElementById('results')).transitionDuration") == "0s"


def test_what_is_not_accessible_is_found(visitor: Visitor) -> None:
    visitor.open()
    visitor.run("document.querySelector('label[for=text]').remove(); document.getElementById('text').placeholder = ''")
    visitor.run("document.querySelector('.tagline').style.color = 'var(--line)'")
    found = violations(visitor)
    assert {"color-contrast", "label"} <= {rule.partition(":")[0] for rule in found}


def violations(visitor: Visitor) -> list[str]:
    """What axe-core finds: rule, and the elements."""
    visitor.run(AXE.read_text())
    found = visitor.driver.execute_async_script(
        "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then(r => done(r.violations),"
        " problem => done([{id: String(problem), nodes: []}]))"
    )
    return [f"{rule['id']}: {[node['html'][:160] for node in rule['nodes'][:3]]}" for rule in found]


def test_landmarks_and_names_are_there_without_sight(visitor: Visitor) -> None:
    visitor.open()
    assert visitor.run("return document.documentElement.lang") == "en"
    assert visitor.one("#status").get_attribute("role") == "status"
    landmarks = visitor.run(
        "return ['header', 'main', 'footer'].map(t => document.querySelectorAll('body > ' + t).length)"
    )
    assert landmarks == [1, 1, 1]
    for field in visitor.all("main input, main textarea"):
        assert field.accessible_name, field.get_attribute("id")


@pytest.fixture
def closed(extractor: Extractor) -> Iterator[str]:
    """The address of a service without a token that may write."""
    server = uvicorn.Server(uvicorn.Config(create_app(extractor), port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    until = time.monotonic() + PATIENCE
    while not server.started and time.monotonic() < until:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(30)


@pytest.fixture(scope="module")
def reading(
    process: Callable[..., Any], attached_recipe: Recipe, small_corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of a service whose model has experts of captions and of knowledge."""
    log = tmp_path_factory.mktemp("reading") / "log"
    options = ("--model", str(seed_folder(attached_recipe, 1)), "--corpus", str(small_corpus))
    with process(log, *options) as (_, address):
        yield address


def test_texts_that_come_with_a_post_have_fields(
    reading: str, start_browser: Callable[[int, int], Any], visitor: Visitor
) -> None:
    assert not visitor.one("#attached").is_displayed(), "experts of the shipped model read none"
    own = Visitor(start_browser(1000, 900), reading)
    text, caption = "Live from Nashville tonight", "a stage <img src=x onerror=window.harmed=1> & people"
    fields = own.all("#attached textarea")
    assert [field.accessible_name for field in fields] == ["Caption optional", "Knowledge optional"]
    assert violations(own) == []
    fields[0].send_keys(caption)
    own.ask(text)
    own.explained()
    asked = {"text": text, "attached": {"caption": caption}}
    row = httpx.post(f"{reading}/v1/extract", json=asked, timeout=PATIENCE).json()
    shares = dict(zip(own.texts("table.experts tbody th")[1:], own.texts("table.experts .weight")[1:], strict=True))
    shown = {name: float(share.removesuffix("%")) / 100 for name, share in shares.items()}
    assert shown == pytest.approx(row["gate"]["entities"], abs=0.0051), "whole percents"
    assert shares["knowledge"] == "0%"
    assert "had nothing to read" in own.texts("table.experts .quiet")
    assert own.texts(".column h3")[1:] == ["Came with the post: caption 1"]
    assert caption in own.texts(".piece .passage")
    assert not own.all(".piece .edit"), "what came with a post is no article"
    assert own.texts(".notes li") == row["warnings"]
    # With the other text, too, its expert is asked.
    fields[1].send_keys("Nashville is the capital of Tennessee.")
    own.ask(text)
    assert "had nothing to read" not in own.texts("table.experts .quiet")
    assert own.texts(".column h3")[1:] == ["Came with the post: caption 1", "Came with the post: knowledge 1"]
    # An example has none of them.
    own.one("[data-id=no-picture]").click()
    own.answered()
    assert [field.get_property("value") for field in own.all("#attached textarea")] == ["", ""]
    assert own.texts(".column h3")[1:] == []
    assert own.run("return window.harmed") is None
    assert own.complaints() == []


def test_where_knowledge_cannot_be_edited_the_page_says_so(
    closed: str, start_browser: Callable[[int, int], Any]
) -> None:
    visitor = Visitor(start_browser(1000, 800), closed)
    assert "read only" in visitor.texts("#state dd")
    assert not visitor.one("#add").is_enabled()
    visitor.ask("Barack Obama in Berlin")
    assert not visitor.all(".piece .edit")
    assert "cannot be edited here: the demo corpus" in visitor.one("#editing").text


def test_links_stay_where_the_text_around_them_does(visitor: Visitor) -> None:
    def moved(before: str, after: str, start: int, end: int) -> Any:
        return visitor.driver.execute_async_script(
            "const [before, after, start, end, done] = arguments; import('/page/files/article.js').then("
            "m => done(m.movedLinks([{start, end, target: 't'}], before, after).map(l => [l.start, l.end])))",
            before,
            after,
            start,
            end,
        )

    assert moved("a painter of Rome", "a painter of Rome and Paris", 2, 9) == [[2, 9]]
    assert moved("a painter of Rome", "😀 a great painter of Rome", 13, 17) == [[21, 25]], "code points"
    assert moved("a painter of Rome", "a sculptor of Rome", 2, 9) == []
    assert moved("aa", "aaa", 0, 2) == [[0, 2]]
    assert moved("Rome", "", 0, 4) == []


def test_a_token_is_nowhere_but_in_memory(visitor: Visitor, server: Any) -> None:
    with pytest.raises(urllib.error.HTTPError):
        server.call("GET", "/v1/knowledge/nothing-of-this-id")
    stored = visitor.run("return [localStorage.length, sessionStorage.length, document.cookie]")
    assert stored == [0, 0, ""]
    assert TOKEN not in visitor.driver.page_source
