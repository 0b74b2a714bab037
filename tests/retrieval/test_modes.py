"""Entity retrieval, fusion, re-ranking, filters, and retrieval across text and picture."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from moreie.datasets import post_from_text
from moreie.encoders.images import ImageEncoder
from moreie.errors import EncoderError, KnowledgeCorpusError, MoreieError
from moreie.knowledge.build import Sources, build_corpus
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.knowledge.update import add, embed
from moreie.retrieval.crossmodal import ImageToTextRetriever, PictureRanked, TextToImageRetriever
from moreie.retrieval.entity import EntityRetriever
from moreie.retrieval.filters import Filtered, without_copies, without_repetitions
from moreie.retrieval.fusion import FusedRetriever, fuse
from moreie.retrieval.rerank import CrossEncoder, Reranked, SentenceSimilarity
from moreie.retrieval.retrieved import Retrieved
from moreie.retrieval.settings import RetrievalSettings
from moreie.retrieval.text import TextRetriever
from moreie.schema import Evidence, Mention, Passage, Post
from moreie.shipped import IMAGE_ENCODER

MINILM = IMAGE_ENCODER.with_name("minilm")
POST = post_from_text("Bowie's London years: a walk from Nashville, Tennessee with #DavidBowie", id="p")


def passage(number: int, text: str) -> Passage:
    return Passage(f"a#{number}", "a", f"Title {number}", text, False)


def evidence(*texts: str) -> list[Evidence]:
    return [Evidence(passage(i, text), "text", i + 1, 1.0) for i, text in enumerate(texts)]


def test_named_articles_come_first(small_corpus: Path) -> None:
    retriever = EntityRetriever(KnowledgeCorpus.open(small_corpus), 6)
    found, nothing, plain = retriever.retrieve([POST, post_from_text("", id="e"), post_from_text("a b", id="f")])
    titles = [e.passage.title for e in found.evidence]
    assert set(titles[:3]) == {"London", "David Bowie", "Nashville, Tennessee"}
    assert len({e.passage.id for e in found.evidence}) == len(found.evidence) <= 6
    assert [e.rank for e in found.evidence] == list(range(1, len(found.evidence) + 1))
    assert nothing.evidence == ()
    assert nothing.warnings == ("no text evidence found",)
    assert plain.evidence == () or plain.evidence[0].retriever == "text"


def test_predicted_mentions_are_asked_for_first(small_corpus: Path) -> None:
    post = post_from_text("so sad about libya today, London calling", id="p")
    mention = next(post.mention("LOC", i, i, 0.9) for i, word in enumerate(post.words) if word.text == "libya")
    retriever = EntityRetriever(KnowledgeCorpus.open(small_corpus), 4)
    assert retriever.retrieve([post], [[mention]])[0].evidence[0].passage.title == "Libya"
    assert retriever.retrieve([post])[0].evidence[0].passage.title == "London"


def test_a_name_that_its_article_writes_otherwise_is_also_sought_as_the_post_writes_it(tmp_path: Path) -> None:
    articles = [
        {"id": "1", "title": "Beyoncé", "paragraphs": ["Beyoncé is a singer.", "Beyoncé, Beyoncé and Beyoncé sang."]},
        {
            "id": "2",
            "title": "Radio",
            "paragraphs": ["Long before the accent came back a host who was late said Beyonce."],
        },
        {"id": "3", "title": "Word order", "paragraphs": ["United they stand, every man. Man here, United there."]},
        {"id": "4", "title": "Football", "paragraphs": ["On that day in the rain it was Man United who won the cup."]},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(a) + "\n" for a in articles), encoding="utf-8")
    build_corpus(tmp_path / "corpus", Sources(articles=(tmp_path / "a.jsonl",)))
    retriever = EntityRetriever(KnowledgeCorpus.open(tmp_path / "corpus"), 2)
    accent, phrase = retriever.retrieve(
        [post_from_text("listening to Beyonce", id="p"), post_from_text("up with Man United", id="q")]
    )
    assert [e.passage.title for e in accent.evidence] == ["Beyoncé", "Radio"]
    assert phrase.evidence[0].passage.title == "Football"


def test_iterative_retrieval_asks_for_what_a_model_predicts(small_corpus: Path) -> None:
    posts = [post_from_text("so sad about libya today, London calling", id="p"), post_from_text("", id="e")]

    def predict(asked: Sequence[Post]) -> list[list[Mention]]:
        return [[p.mention("LOC", i, i, 0.9) for i, w in enumerate(p.words) if w.text == "libya"] for p in asked]

    corpus = KnowledgeCorpus.open(small_corpus)
    retriever = RetrievalSettings(mode="iterative", k=4).retriever(corpus, predict)
    found, nothing = retriever.retrieve(posts)
    assert found.evidence[0].passage.title == "Libya"
    assert nothing.evidence == ()
    with pytest.raises(MoreieError, match="needs a model"):
        RetrievalSettings(mode="iterative").retriever(corpus)


def test_a_corpus_without_names_says_so(small_corpus: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(small_corpus, old)
    manifest = json.loads((old / "manifest.json").read_text())
    del manifest["tables"]["names"]
    (old / "manifest.json").write_text(json.dumps(manifest))
    found = EntityRetriever(KnowledgeCorpus.open(old)).retrieve([POST])[0]
    assert found.evidence
    assert "keeps no names" in found.warnings[0]


def test_fusion_sums_reciprocal_ranks() -> None:
    first, second = evidence("x", "y", "z"), evidence("x", "y")
    swapped = [Evidence(second[1].passage, "text", 1, 1.0), Evidence(second[0].passage, "text", 2, 1.0)]
    fused = fuse([first, swapped], 3)
    assert [p.id for p, _ in fused] == ["a#0", "a#1", "a#2"]
    assert fused[0][1] == pytest.approx(1 / 61 + 1 / 62)
    assert fuse([first, swapped], 1, weights=[0.1, 1.0])[0][0].id == "a#1"
    with pytest.raises(ValueError, match="argument 2 is longer"):
        fuse([first], 3, weights=[1.0, 2.0])


def test_fused_retrievers_find_what_either_finds(small_corpus: Path) -> None:
    corpus = KnowledgeCorpus.open(small_corpus)
    parts = (TextRetriever(corpus, 5), EntityRetriever(corpus, 5))
    fused = FusedRetriever(parts, k=10).retrieve([POST])[0]
    ids = {e.passage.id for e in fused.evidence}
    assert ids == {e.passage.id for part in parts for e in part.retrieve([POST])[0].evidence}


def test_sentence_similarity_ranks_the_fitting_passage_first(small_corpus: Path) -> None:
    scorer = SentenceSimilarity.from_pretrained(MINILM)
    passages = [passage(0, "A recipe for onion soup."), passage(1, "An English singer known for glam rock.")]
    low, high = scorer.score([("the rock singer's new album", p) for p in passages])
    assert high > low
    retriever = Reranked(TextRetriever(KnowledgeCorpus.open(small_corpus), 10), scorer, 3)
    found = retriever.retrieve([POST, post_from_text("", id="e")])
    scores = [e.score for e in found[0].evidence]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert found[1].evidence == ()


def test_a_cross_encoder_is_loaded_and_asked(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder_folder)
    config = BertConfig.from_pretrained(tiny_encoder_folder, num_labels=1)
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    scorer = CrossEncoder.from_pretrained(tmp_path)
    pairs = [("a post", passage(i, "word " * (i * 40 + 1))) for i in range(5)]
    together = scorer.score(pairs, batch_size=2)
    alone = [scorer.score([pair])[0] for pair in pairs]
    assert together == pytest.approx(alone, abs=1e-2)
    with pytest.raises(EncoderError, match="no cross-encoder"):
        CrossEncoder.from_pretrained(tmp_path / "nowhere")


def test_copies_of_the_post_and_repetitions_are_left_out() -> None:
    text = "Kawhi Leonard and the Spurs beat the Thunder in San Antonio last night"
    post = post_from_text(text, id="p")
    rows = evidence(
        f"The tweet read: RT {text.upper()}!",
        "Kawhi Leonard is an American basketball player who won the title with the Spurs in 2014.",
        "Kawhi Leonard is an American basketball player who won the title with the Spurs in 2014, and again.",
        "San Antonio is a city in Texas.",
    )
    assert [e.passage.id for e in without_copies(post, rows)] == ["a#1", "a#2", "a#3"]
    assert [e.passage.id for e in without_repetitions(rows)] == ["a#0", "a#1", "a#3"]
    assert without_copies(post_from_text("San Antonio is a city", id="s"), rows) == rows, "too short to be told"

    class Found:
        name = "text"

        def retrieve(self, posts: object) -> list[Retrieved]:
            return [Retrieved(tuple(rows))]

    filtered = Filtered(Found(), 2).retrieve([post])[0]
    assert [(e.passage.id, e.rank) for e in filtered.evidence] == [("a#1", 1), ("a#3", 2)]
    assert filtered.warnings == ("1 near-copies of the post left out of its evidence",)


@pytest.fixture(scope="module")
def picture_corpus(tmp_path_factory: pytest.TempPathFactory, data: Path, clip: ImageEncoder) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    lines = []
    for title in ("London", "Libya", "Tripoli"):
        Image.fromarray(rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(folder / f"{title}.png")
        lines.append(f'{{"file": "{title}.png", "title": "{title}"}}\n')
    (folder / "images.jsonl").write_text("".join(lines))
    sources = Sources(articles=(data / "articles.jsonl",), images=((folder / "images.jsonl", folder),))
    build_corpus(folder / "corpus", sources, image_encoder=clip)
    return folder


def test_text_finds_pictures_and_pictures_rank_text(clip: ImageEncoder, picture_corpus: Path) -> None:
    corpus = KnowledgeCorpus.open(picture_corpus / "corpus")
    assert clip.dimension == 16
    vectors = clip.encode_texts(["one", "one", "a much longer text " * 20])
    assert vectors.shape == (3, 16)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1], abs=1e-3)
    assert vectors[0] == pytest.approx(vectors[1], abs=1e-3)
    found, nothing = TextToImageRetriever(corpus, clip, 2).retrieve([POST, post_from_text("", id="e")])
    pictures = {f"{t}.png": clip.encode([picture_corpus / f"{t}.png"])[0] for t in ("London", "Libya", "Tripoli")}
    query = clip.encode_texts([POST.text])[0]
    best = sorted(pictures, key=lambda name: -float(pictures[name] @ query))[:2]
    assert [e.passage.image for e in found.evidence] == best
    assert nothing.warnings == ("no article picture found",)
    post = post_from_text(POST.text, id="q", image=picture_corpus / "London.png")
    base = TextRetriever(corpus, 6)
    by_picture, without = PictureRanked(base, clip, 3).retrieve([post, POST])
    texts = {e.passage.id: e.passage for e in base.retrieve([post])[0].evidence}
    image = clip.encode([picture_corpus / "London.png"])[0]
    scores = {id: float(clip.encode_texts([f"{p.title}. {p.text}"])[0] @ image) for id, p in texts.items()}
    expected = sorted(scores.values(), reverse=True)[:3]
    assert [e.score for e in by_picture.evidence] == pytest.approx(expected, abs=2e-2)
    assert without.warnings == ("no picture to rank by",)
    with pytest.raises(EncoderError, match="without a text tower"):
        TextToImageRetriever(corpus, ImageEncoder.from_pretrained(IMAGE_ENCODER))
    with pytest.raises(KnowledgeCorpusError, match="were embedded by"):
        corpus.search_images(query[None], 1, encoder_fingerprint="another")


def test_pictures_find_texts(clip: ImageEncoder, picture_corpus: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(picture_corpus / "corpus", tmp_path / "corpus"))
    photo = picture_corpus / "London.png"
    with pytest.raises(KnowledgeCorpusError, match="`moreie corpus embed` does that"):
        ImageToTextRetriever(KnowledgeCorpus.open(folder), clip).retrieve([POST])
    embed(folder, clip)
    (tmp_path / "cut.png").write_bytes(photo.read_bytes()[:200])
    posts = [
        post_from_text("a photo", id="q", image=photo),
        POST,
        post_from_text("another", id="r", image=picture_corpus / "Libya.png"),
        post_from_text("broken", id="b", image=tmp_path / "cut.png"),
    ]
    corpus = KnowledgeCorpus.open(folder)
    retriever = ImageToTextRetriever(corpus, clip, 3)
    found, without, other, broken = retriever.retrieve(posts)
    passages = [
        row for batch in corpus.scan("passages", ["title", "text", "introduction"]) for row in batch.to_pylist()
    ]
    texts = [f"{row['title']}. {row['text']}" for row in passages if row["introduction"]]
    vectors = clip.encode_texts(texts)
    for retrieved, name in ((found, "London.png"), (other, "Libya.png")):
        expected = np.sort(vectors @ clip.encode([picture_corpus / name])[0])[::-1][:3]
        assert [e.score for e in retrieved.evidence] == pytest.approx(expected, abs=2e-2)
        assert [(e.rank, e.retriever, e.passage.introduction) for e in retrieved.evidence] == [
            (rank, "image", True) for rank in (1, 2, 3)
        ]
        assert retrieved.warnings == ()
    assert (without.evidence, without.warnings) == ((), ("no picture",))
    assert broken.evidence == ()
    assert broken.warnings[0].startswith("picture unreadable")
    assert retriever.retrieve([]) == []
    new = tmp_path / "new.jsonl"
    new.write_text('{"id": "z1", "title": "Zorblax", "paragraphs": ["Zorblax are a band."]}\n')
    add(folder, Sources(articles=(new,)))
    said = ImageToTextRetriever(KnowledgeCorpus.open(folder), clip, 3).retrieve(posts[:1])[0].warnings
    assert said == ("1 introductions are not embedded, so not found (`moreie corpus embed` adds them)",)
    with pytest.raises(EncoderError, match="without a text tower"):
        ImageToTextRetriever(corpus, ImageEncoder.from_pretrained(IMAGE_ENCODER))
