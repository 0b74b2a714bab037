"""Pictures of articles: from a dump's own files, from tar archives and from WIT tables; embedded once."""

from __future__ import annotations

import base64
import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from moreie.encoders.images import ImageEncoder
from moreie.errors import DataFormatError, KnowledgeCorpusError, SourceError
from moreie.knowledge.build import Sources, build_corpus
from moreie.knowledge.export import export_pictures
from moreie.knowledge.pictures import PictureStore
from moreie.knowledge.sources.images import ImageEntry, read_images
from moreie.knowledge.update import add
from moreie.knowledge.verify import verify
from moreie.shipped import IMAGE_ENCODER


def picture(seed: int) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    pages = []
    for i, (title, files) in enumerate({"Ruin": ["Ruin one.png", "Ruin two.png"], "Mill": ["Mill.png"]}.items()):
        text = f"'''{title}''' is an article on a {title.lower()}.\n" + "".join(
            f"== Part ==\n[[File:{file}|thumb|left|A view of the [[{title}]]]]\n" for file in files
        )
        pages.append(
            f"<page><title>{title}</title><ns>0</ns><id>{i}</id><revision><text>{text}</text></revision></page>"
        )
    path = tmp_path / "dump.xml"
    path.write_text(f"<mediawiki>{''.join(pages)}</mediawiki>")
    return path


def test_the_pictures_of_a_dump_are_listed_and_added_as_they_come(dump: Path, tmp_path: Path) -> None:
    corpus, manifest, folder = tmp_path / "corpus", tmp_path / "manifest.jsonl", tmp_path / "pictures"
    build_corpus(corpus, Sources(dumps=(dump,)))
    assert export_pictures(corpus, manifest) == (3, 0)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert rows[0] == {
        "file": "Ruin one.png",
        "title": "Ruin",
        "article_id": "0",
        "section": "Part",
        "caption": "A view of the Ruin",
    }
    encoder = ImageEncoder.from_pretrained(IMAGE_ENCODER)
    folder.mkdir()
    (folder / "Ruin_one.png").write_bytes(picture(1))  # as downloads are called
    (folder / "Mill.png").write_bytes(b"no picture")
    sources = Sources(images=((manifest, folder),))
    first = add(corpus, sources, image_encoder=encoder)
    assert first.manifest.images == 1
    assert sorted(said.split(":")[-1].strip()[:12] for said in first.skipped) == ["file 'Ruin t", "not a pictur"]
    (folder / "Ruin two.png").write_bytes(picture(2))
    (folder / "Mill.png").write_bytes(picture(3))
    second = add(corpus, sources, image_encoder=encoder)
    assert (second.images, second.manifest.images) == (2, 3)
    assert len(second.skipped) == 1
    assert "1 pictures are in the corpus already" in second.skipped[0]
    assert export_pictures(corpus, manifest) == (0, 3)
    assert verify(corpus) == []


def test_a_corpus_without_picture_files_says_so(small_corpus: Path, tmp_path: Path) -> None:
    assert export_pictures(small_corpus, tmp_path / "m.jsonl") == (0, 0)
    old = json.loads((small_corpus / "manifest.json").read_text())
    del old["tables"]["files"]
    shutil.copytree(small_corpus, tmp_path / "old")
    (tmp_path / "old" / "manifest.json").write_text(json.dumps(old))
    with pytest.raises(KnowledgeCorpusError, match="named no pictures"):
        export_pictures(tmp_path / "old", tmp_path / "m.jsonl")


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_pictures_come_from_a_tar_archive(tmp_path: Path, suffix: str) -> None:
    archive = tmp_path / f"pictures{suffix}"
    with tarfile.open(archive, "w:gz" if suffix.endswith("gz") else "w") as tar:
        for name, content in {"a/One_two.png": picture(1), "./x.png": picture(2), "other.png": picture(3)}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    manifest = tmp_path / "m.jsonl"
    rows = [("One two.png", "A"), ("x.png", "B"), ("x.png", "C"), ("gone.png", "D")]
    manifest.write_text("".join(json.dumps({"file": f, "title": t}) + "\n" for f, t in rows))
    bad: list[DataFormatError] = []
    found = list(read_images(manifest, archive, bad.append))
    assert [(e.file, e.title, e.content) for e in found] == [
        ("One two.png", "A", picture(1)),
        ("x.png", "B", picture(2)),
        ("x.png", "C", picture(2)),
    ]
    assert "m.jsonl:4" in str(bad[0])
    assert "'gone.png' is not in" in str(bad[0])
    archive.write_bytes(archive.read_bytes()[:700])
    with pytest.raises(SourceError, match="cut off or damaged"):
        list(read_images(manifest, archive, bad.append))


WIT = ["language", "page_url", "image_url", "page_title", "caption_reference_description", "b64_bytes"]


def wit(path: Path, rows: list[dict[str, Any]]) -> Path:
    lines = ["\t".join(WIT)] + ["\t".join(str(row.get(column, "")) for column in WIT) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_pictures_come_from_a_wit_table(tmp_path: Path) -> None:
    url = "https://upload.example.org/a/ab/One%2C_two.png"
    encoded = base64.b64encode(picture(1)).decode()
    rows = [
        {
            "language": "en",
            "image_url": url,
            "page_title": "A",
            "caption_reference_description": "c",
            "b64_bytes": encoded,
        },
        {"language": "de", "image_url": url, "page_title": "A"},
        {"language": "en", "image_url": "https://upload.example.org/x.png", "page_title": "B"},
        {"language": "en", "image_url": "https://upload.example.org/y.png", "page_title": ""},
        {"language": "en", "image_url": url, "page_title": "C", "b64_bytes": "not base 64!"},
    ]
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "x.png").write_bytes(picture(2))
    bad: list[DataFormatError] = []
    found = list(read_images(wit(tmp_path / "wit.tsv", rows), tmp_path / "mirror", bad.append))
    assert [(e.file, e.title, e.caption, e.content, e.path) for e in found] == [
        ("One, two.png", "A", "c", picture(1), None),
        ("x.png", "B", "", None, tmp_path / "mirror" / "x.png"),
    ]
    assert [str(problem).split(": ", 1)[1][:24] for problem in bad] == [
        "a row with too few or to",
        "One, two.png: its bytes ",
    ]
    (tmp_path / "wrong.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(SourceError, match="no column image_url and no column page_title"):
        list(read_images(tmp_path / "wrong.tsv", tmp_path))


class Counting:
    """The real encoder, with its calls counted."""

    def __init__(self) -> None:
        self.encoder = ImageEncoder.from_pretrained(IMAGE_ENCODER)
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.encoder, name)

    def encode(self, images: Any) -> Any:
        self.calls += 1
        if self.calls == 3:
            raise KeyboardInterrupt
        return self.encoder.encode(images)


def test_embedding_that_is_cut_off_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moreie.knowledge.pictures.IMAGES_PER_BATCH", 2)
    entries = [(ImageEntry(f"{i}.png", "T", content=picture(i)), i) for i in range(7)]
    entries[3] = (ImageEntry("3.png", "T", content=b"broken"), 3)
    encoder: Any = Counting()
    with pytest.raises(KeyboardInterrupt):
        list(PictureStore(tmp_path / "store", encoder).embed(entries))
    assert encoder.calls == 3
    found = list(PictureStore(tmp_path / "store", encoder).embed(entries))
    assert encoder.calls == 5, "two batches of four were done before"
    assert [rows["passage"].to_pylist() for rows, _, _ in found] == [[0, 1], [2], [4, 5], [6]]
    assert [skipped for _, _, skipped in found][1] == ("3.png: not a picture",)
    vectors = np.stack([v for rows, _, _ in found for v in rows["vector"].to_numpy(zero_copy_only=False)])
    assert np.linalg.norm(vectors.astype(np.float32), axis=1) == pytest.approx(np.ones(6), abs=2e-3)
