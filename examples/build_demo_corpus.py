"""Make the demo's corpus and pictures (src/moreie/shipped/demo) from Wikipedia articles, a dump and pictures.

The demo corpus is a small piece of a large one: for every demo post the articles a search of the large corpus brings
up first, the articles of the pictures, and a random rest that makes the search a search.

    python examples/build_demo_corpus.py --articles wikipedia.jsonl.zst --corpus wikipedia-corpus \
        --dump paintings.xml --pictures images/ --out src/moreie/shipped/demo
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image, ImageEnhance

from moreie.datasets import read_jsonl
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.knowledge.sources.articles import read_articles
from moreie.knowledge.sources.mediawiki import read_dump
from moreie.retrieval.text import TextRetriever
from moreie.schema import Article

# Paintings whose painters died more than 70 years ago, by page id of their article.
# fmt: off
PAINTINGS = (
    10585687, 11304576, 11891017, 11986531, 14239014, 17951575, 1855187, 18810113, 19327739, 19328262,
    19987138, 21792338, 23777027, 25937938, 2686178, 27353472, 27586257, 29263940, 3033722, 31523462,
    31568745, 34024176, 34088236, 34228969, 34422643, 34893076, 35699042, 38149003, 38532297, 38850296,
    41895024, 44049905, 44165625, 44892370, 46256971, 50337763, 50358426, 50426876, 53032393,
)
# fmt: on
# Number of a portrait in the collection → title of the article on the person.
PORTRAITS = {
    168: "William III of England",
    401: "Charles II of England",
    505: "James II of England",
    1745: "Anne, Queen of Great Britain",
    1237: "George I of Great Britain",
    1762: "Gottfried Wilhelm Leibniz",
    710: "Prince Eugene of Savoy",
    1695: "John Churchill, 1st Duke of Marlborough",
    31: "Charles VI, Holy Roman Emperor",
    369: "John III Sobieski",
    1700: "Charles XII of Sweden",
    674: "Philip V of Spain",
    252: "Philip IV of Spain",
    51: "Pope Clement XI",
    497: "Pope Alexander VIII",
    667: "Pope Innocent XII",
    1768: "Charles V, Holy Roman Emperor",
    1118: "Caroline of Ansbach",
    1724: "James Francis Edward Stuart",
    1736: "Louis I of Spain",
    280: "Stephen I of Hungary",
    520: "Mary of Modena",
    403: "Afonso VI of Portugal",
    699: "Michał Korybut Wiśniowiecki",
    1238: "Sophia of Hanover",
    1539: "Elisabeth Farnese",
}
# Demo picture → (source, share cropped from each side, turn in degrees, brightness): a photograph somebody took of
# the picture is imitated, so that the file in the corpus is never the one in the post.
COPIES = {
    "andes.jpg": ("paintings/14239014.jpg", 0.12, 2.0, 0.8),
    "toledo.jpg": ("paintings/2686178.jpg", 0.10, -2.0, 1.2),
    "sobieski.jpg": ("portraits/emt_person_id__369.jpg", 0.08, 2.0, 1.2),
    "charles.jpg": ("portraits/emt_person_id__1700.jpg", 0.08, -2.0, 0.85),
}
PHOTOGRAPHS = {
    "bowie.jpg": "tweets/mnre/val/twitter_stream_2018_06_11_24_0_2_194.jpg",
    "libya.jpg": "tweets/mnre/val/twitter_stream_2018_09_04_14_0_2_44.jpg",
    "spurs.jpg": "tweets/twitter_2017/test/1.jpg",
    "saints.jpg": "tweets/twitter_2017/test/5.jpg",
    "scargill.jpg": "tweets/twitter_2017/dev/3.jpg",
}
SIDE = 800


def main(
    articles: Annotated[Path, typer.Option(help="Article JSONL of the large corpus.")],
    corpus: Annotated[Path, typer.Option(help="The large corpus, built from it.")],
    dump: Annotated[Path, typer.Option(help="MediaWiki export with the paintings' articles.")],
    pictures: Annotated[Path, typer.Option(help="Folder with paintings/, portraits/ and tweets/.")],
    out: Annotated[Path, typer.Option(help="Folder with posts.jsonl; pictures/ and corpus/ are made there.")],
    rest: Annotated[int, typer.Option(help="Random articles besides.")] = 2500,
    near: Annotated[int, typer.Option(help="Articles per demo post.")] = 40,
) -> None:
    """Make the demo's corpus and pictures."""
    _make_pictures(pictures, out / "pictures")
    posts = read_jsonl(out / "posts.jsonl")
    found = TextRetriever(KnowledgeCorpus.open(corpus), near).retrieve(posts)
    wanted = {e.passage.article_id for row in found for e in row.evidence}
    titles = set(PORTRAITS.values())
    chosen: list[Article] = []
    others: list[Article] = []
    sample = random.Random(0)
    for seen, article in enumerate(read_articles(articles)):
        if article.id in wanted or article.title in titles:
            chosen.append(article)
        elif len(others) < rest:
            others.append(article)
        elif (place := sample.randrange(seen + 1)) < rest:
            others[place] = article
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _write(folder / "articles.jsonl", [*chosen, *others])
        _write(folder / "paintings.jsonl", read_dump(dump))
        _write_manifest(folder / "images.jsonl", {a.title for a in chosen})
        shutil.rmtree(out / "corpus", ignore_errors=True)
        command = [sys.executable, "-m", "moreie", "corpus", "build", str(out / "corpus")]
        for name in ("articles.jsonl", "paintings.jsonl"):
            command += ["--articles", str(folder / name)]
        subprocess.run([*command, "--images", str(folder / "images.jsonl"), "--image-root", str(pictures)], check=True)


def _make_pictures(source: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name, place in PHOTOGRAPHS.items():
        _save(Image.open(source / place).convert("RGB"), out / name)
    for name, (place, crop, turn, light) in COPIES.items():
        picture = Image.open(source / place).convert("RGB")
        width, height = picture.size
        turned = picture.rotate(turn, Image.Resampling.BICUBIC)
        box = (int(width * crop), int(height * crop), int(width * (1 - crop)), int(height * (1 - crop)))
        _save(ImageEnhance.Brightness(turned.crop(box)).enhance(light), out / name)


def _save(picture: Image.Image, path: Path) -> None:
    picture.thumbnail((SIDE, SIDE))
    picture.save(path, "JPEG", quality=80)


def _write(path: Path, articles: object) -> None:
    with path.open("w", encoding="utf-8") as out:
        for article in articles:  # type: ignore[attr-defined]
            row = {
                "id": article.id,
                "title": article.title,
                "url": article.url,
                "paragraphs": [
                    {
                        "text": p.text,
                        "introduction": p.introduction,
                        "links": [{"start": x.start, "end": x.end, "target": x.target} for x in p.links],
                    }
                    for p in article.paragraphs
                ],
            }
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_manifest(path: Path, titles: set[str]) -> None:
    rows = [{"file": f"paintings/{page}.jpg", "title": str(page), "page_id": str(page)} for page in PAINTINGS]
    for number, title in PORTRAITS.items():
        if title not in titles:
            raise SystemExit(f"no article {title!r}")
        rows.append({"file": f"portraits/emt_person_id__{number}.jpg", "title": title, "licence": "public domain"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
