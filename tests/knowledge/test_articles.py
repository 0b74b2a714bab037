"""Article JSONL, plain and compressed, whole and cut off."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import zstandard

from moreie.errors import DataFormatError, SourceError
from moreie.knowledge.sources.articles import read_articles

ROWS = [{"id": str(i), "title": f"Title {i}", "paragraphs": [f"Lead {i}.", "Body."]} for i in range(400)]
TEXT = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_plain_and_compressed_files_read_alike(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"articles.jsonl{suffix}"
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}[suffix]
    path.write_bytes(pack(TEXT))
    heard: list[int] = []
    articles = list(read_articles(path, progress=heard.append))
    assert [a.id for a in articles] == [row["id"] for row in ROWS]
    assert [p.introduction for p in articles[7].paragraphs] == [True, False]
    assert sum(heard) == path.stat().st_size


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_file_that_is_cut_off_is_an_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"articles.jsonl{suffix}"
    data = gzip.compress(TEXT) if suffix == ".gz" else zstandard.ZstdCompressor().compress(TEXT)
    for size in (len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(SourceError, match="cut off"):
            list(read_articles(path))


def test_zstandard_frames_follow_one_another(tmp_path: Path) -> None:
    path = tmp_path / "articles.jsonl.zst"
    half = TEXT.index(b"\n", len(TEXT) // 2) + 1
    pack = zstandard.ZstdCompressor().compress
    path.write_bytes(pack(TEXT[:half]) + pack(TEXT[half:]))
    assert len(list(read_articles(path))) == len(ROWS)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "JSON"),
        ('{"id": "1", "title": "T"}', "paragraphs"),
        ('{"id": "1", "title": "", "paragraphs": ["x"]}', "title"),
        ('{"id": "1", "title": "T", "paragraphs": ["x"], "extra": 1}', "extra"),
        (
            '{"id": "1", "title": "T", '
            '"paragraphs": [{"text": "ab", "links": [{"start": 0, "end": 9, "target": "X"}]}]}',
            "outside its paragraph",
        ),
    ],
)
def test_a_malformed_line_is_named_or_skipped(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "articles.jsonl"
    good = json.dumps(ROWS[0])
    path.write_text(f"{good}\n{line}\n{good}\n")
    with pytest.raises(DataFormatError, match=problem) as caught:
        list(read_articles(path))
    assert caught.value.line == 2
    bad: list[DataFormatError] = []
    assert len(list(read_articles(path, on_bad=bad.append))) == 2
    assert [b.line for b in bad] == [2]


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        list(read_articles(tmp_path / "none.jsonl"))
