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

# Page id of an article on a painting → its painter; all died more than 95 years ago, so the works are in the
# public domain. (A painting of 1966 in the same dump is left out.)
PAINTINGS = {
    10585687: "John Constable, 1776–1837",
    11304576: "copy of 1636 attributed to Jacob Elbfas, about 1600–1664",
    11891017: "Annibale Carracci, 1560–1609",
    11986531: "Rembrandt, 1606–1669",
    14239014: "Frederic Edwin Church, 1826–1900",
    17951575: "George Price Boyce, 1826–1897",
    1855187: "Tom Thomson, 1877–1917",
    18810113: "John Constable, 1776–1837",
    19327739: "Nicolas Poussin, 1594–1665",
    19328262: "Nicolas Poussin, 1594–1665",
    19987138: "Albrecht Dürer, 1471–1528",
    21792338: "J. M. W. Turner, 1775–1851",
    23777027: "Thomas Gainsborough, 1727–1788",
    25937938: "Claude Monet, 1840–1926",
    2686178: "El Greco, 1541–1614",
    27353472: "Édouard Manet, 1832–1883",
    27586257: "John Henry Twachtman, 1853–1902",
    29263940: "Caspar David Friedrich, 1774–1840",
    3033722: "Eugene von Guerard, 1811–1901",
    31523462: "Albert Bierstadt, 1830–1902",
    31568745: "Paul Cézanne, 1839–1906",
    34024176: "Frederic Edwin Church, 1826–1900",
    34088236: "Willard Metcalf, 1858–1925",
    34228969: "Martin Johnson Heade, 1819–1904",
    34422643: "Nicolas Poussin, 1594–1665",
    34893076: "Konrad Witz, about 1400–1446",
    35699042: "Alfred Thompson Bricher, 1837–1908",
    38149003: "Albert Bierstadt, 1830–1902",
    38532297: "Frederic Edwin Church, 1826–1900",
    38850296: "Claude Lorrain, 1600–1682",
    41895024: "Joseph Wright of Derby, 1734–1797",
    44049905: "Frederic Edwin Church, 1826–1900",
    44165625: "J. C. Dahl, 1788–1857",
    44892370: "August Malmström, 1829–1901",
    46256971: "Pierre-Auguste Renoir, 1841–1919",
    50358426: "Thomas Gainsborough, 1727–1788",
    50426876: "Werner Holmberg, 1830–1860",
    53032393: "Rembrandt, 1606–1669",
}
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
    pictures: Annotated[Path, typer.Option(help="Folder with manifest.jsonl, paintings/, portraits/ and tweets/.")],
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
        painted = list(read_dump(dump))
        _write(folder / "paintings.jsonl", painted)
        with (pictures / "manifest.jsonl").open(encoding="utf-8") as lines:
            commons = {row["file"]: row["commons_file"] for row in map(json.loads, lines) if "commons_file" in row}
        titles_of_paintings = {a.id: a.title for a in painted}
        rows = _write_manifest(folder / "images.jsonl", {a.title for a in chosen}, titles_of_paintings, commons)
        _write_list(out / "PICTURES.md", rows)
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


def _write_manifest(
    path: Path, titles: set[str], paintings: dict[str, str], commons: dict[str, str]
) -> list[dict[str, str]]:
    rows = [
        {
            "file": f"paintings/{page}.jpg",
            "title": paintings[str(page)],
            "article_id": str(page),
            "attribution": painter,
            "licence": "public domain",
        }
        for page, painter in PAINTINGS.items()
    ]
    for number, title in PORTRAITS.items():
        if title not in titles:
            raise SystemExit(f"no article {title!r}")
        file = f"portraits/emt_person_id__{number}.jpg"
        source = f"Wikimedia Commons: {commons[file]}"
        rows.append({"file": file, "title": title, "attribution": source, "licence": "public domain"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return rows


def _write_list(path: Path, rows: list[dict[str, str]]) -> None:
    lines = ["# Pictures of the demo corpus", "", "| file | article | by / from | licence |", "|---|---|---|---|"]
    lines += [f"| {r['file']} | {r['title']} | {r['attribution']} | {r['licence']} |" for r in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
