"""The commands as a user types them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moreie.cli.app import app
from moreie.datasets import read_posts
from moreie.encoders.images import ImageEncoder
from moreie.shipped import DEMO_POSTS

runner = CliRunner()
COMMANDS = [
    [],
    ["extract"],
    ["retrieve"],
    ["train"],
    ["evaluate"],
    ["report"],
    ["reproduce"],
    ["recompute"],
    ["serve"],
    ["demo"],
    ["data", "check"],
    ["corpus", "build"],
    ["corpus", "info"],
    ["corpus", "add"],
    ["corpus", "replace"],
    ["corpus", "remove"],
    ["corpus", "compact"],
    ["corpus", "embed"],
    ["corpus", "verify"],
    ["corpus", "export"],
    ["corpus", "pictures"],
    ["corpus", "anchors"],
    ["attach"],
    ["evidence"],
    ["init"],
    ["check"],
    ["doctor"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: " ".join(c) or "moreie")
def test_help_has_examples(command: list[str]) -> None:
    done = runner.invoke(app, [*command, "--help"])
    assert done.exit_code == 0
    assert "Usage" in done.output
    if command:
        assert "Example" in done.output


def test_help_and_import_load_nothing_heavy() -> None:
    code = (
        "import sys, moreie, moreie.cli.app\n"
        "from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(moreie.cli.app.app, ['--help']).exit_code == 0\n"
        "heavy = {'torch', 'transformers', 'numpy', 'lancedb', 'faiss', 'sklearn', 'PIL'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_version() -> None:
    from moreie import __version__

    assert runner.invoke(app, ["--version"]).output.strip() == __version__


def test_extract_prints_json(tmp_path: Path) -> None:
    done = runner.invoke(app, ["extract", "--text", "Angela Merkel visits Paris", "--json"])
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout)
    assert {m["text"] for m in row["mentions"]} >= {"Angela Merkel", "Paris"}
    sparing = runner.invoke(app, ["extract", "--text", "Angela Merkel visits Paris", "--json", "--certainty", "0.5"])
    assert sparing.exit_code == 0, sparing.output
    assert json.loads(sparing.stdout)["model"] == f"{row['model']} (certainty 0.5)"
    assert json.loads(sparing.stdout)["gate"]["entities"]["baseline"] == 1
    strict = runner.invoke(app, ["extract", "--text", "Angela Merkel visits Paris", "--json", "--threshold", "0.999"])
    assert json.loads(strict.stdout)["model"] == f"{row['model']} (threshold 0.999)"
    assert len(json.loads(strict.stdout)["mentions"]) < len(row["mentions"])


def test_extract_reads_a_file_and_writes_a_report(tmp_path: Path, data: Path) -> None:
    report = tmp_path / "report.html"
    posts = tmp_path / "posts.jsonl"
    posts.write_text("".join((data / "posts.jsonl").read_text().splitlines(keepends=True)[:3]) + "{broken\n")
    failed = runner.invoke(app, ["extract", "--input", str(posts)])
    assert failed.exit_code == 2
    assert "posts.jsonl:4" in failed.stderr
    done = runner.invoke(app, ["extract", "--input", str(posts), "--skip-bad", "--json", "--html", str(report)])
    assert done.exit_code == 0, done.output
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 3
    assert "posts.jsonl:4" in done.stderr
    assert report.read_text().count("<article>") == 3


def test_extract_says_which_articles_mentions_are(small_corpus: Path, tmp_path: Path) -> None:
    corpus = str(shutil.copytree(small_corpus, tmp_path / "corpus"))
    counted = runner.invoke(app, ["corpus", "anchors", corpus])
    assert counted.exit_code == 0, counted.output
    assert "the corpus has no links" in counted.stderr
    command = ["extract", "--text", "Kawhi Leonard leads the Toronto Raptors", "--corpus", corpus]
    done = runner.invoke(app, [*command, "--link", "--json"])
    assert done.exit_code == 0, done.output
    links = {m["text"]: m["link"] for m in json.loads(done.stdout)["mentions"]}
    assert links["Kawhi Leonard"]["article"] == "simple:550510"
    assert links["Toronto Raptors"]["article"] is None
    explained = runner.invoke(app, [*command, "--link", "--attribute"])
    assert "= Kawhi Leonard" in explained.stdout


def test_the_demo_runs(tmp_path: Path) -> None:
    done = runner.invoke(app, ["demo", "--html", str(tmp_path / "demo.html")])
    assert done.exit_code == 0, done.output
    html = (tmp_path / "demo.html").read_text()
    posts = [json.loads(line) for line in DEMO_POSTS.read_text().splitlines()]
    assert len(posts) >= 8
    assert html.count("<article>") == len(posts)
    assert html.count("the post's picture") == sum("image" in p for p in posts)
    assert "http://" not in html.replace("http://en.wikipedia", "") or 'src="http' not in html, "self-contained"
    assert "gate (entities)" in done.stdout


def test_retrieve_prints_a_table_and_json() -> None:
    table = runner.invoke(app, ["retrieve", "--text", "The Heart of the Andes", "-k", "2"])
    assert table.exit_code == 0
    assert "text retriever" in table.stdout
    picture = DEMO_POSTS.parent / "pictures" / "andes.jpg"
    done = runner.invoke(app, ["retrieve", "--text", "Andes", "--image", str(picture), "-k", "3", "--json"])
    evidence = json.loads(done.stdout)["evidence"]
    assert {e["retriever"] for e in evidence} == {"text", "image"}
    assert max(e["rank"] for e in evidence) == 3
    first = next(e for e in evidence if e["retriever"] == "image")
    assert first["title"] == "The Heart of the Andes"


def test_evidence_of_a_file_is_kept(tmp_path: Path, data: Path) -> None:
    target = tmp_path / "evidence.jsonl.zst"
    command = ["retrieve", "--input", str(data / "twitter2017-sample.txt"), "--save", str(target)]
    done = runner.invoke(app, command)
    assert done.exit_code == 0, done.output
    assert target.exists()
    assert "without evidence" in done.stderr
    again = runner.invoke(app, command)
    assert "nothing to do" in again.stderr
    other = runner.invoke(app, [*command, "--mode", "entities"])
    assert "without evidence" in other.stderr, "other settings, other evidence"
    iterative = runner.invoke(app, [*command, "--mode", "iterative"])
    assert "without evidence" in iterative.stderr, iterative.output
    assert '"model": "moreie-minilm-1"' in runner.invoke(app, ["evidence", str(target)]).stdout
    posts = read_posts(data / "twitter2017-sample.txt")
    shown = runner.invoke(app, ["evidence", str(target), "--post", posts[0].id])
    assert shown.exit_code == 0, shown.output
    assert '"mode": "iterative"' in shown.stdout
    assert "text retriever" in shown.stdout
    lost = runner.invoke(app, ["evidence", str(target), "--post", "nobody"])
    assert lost.exit_code == 2
    assert "holds no post 'nobody'" in lost.stderr


def test_texts_are_attached_as_evidence(tmp_path: Path, data: Path) -> None:
    target = tmp_path / "knowledge.jsonl.zst"
    posts = str(data / "twitter2017-sample.txt")
    command = ["attach", str(data / "pgim-sample.txt"), "--input", posts, "--name", "knowledge", "--save", str(target)]
    done = runner.invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "10 posts, 3 with a text; 0 texts belong to none of them" in done.stderr
    assert done.stderr.count("no text for post twitter2017-sample:") == 7
    shown = runner.invoke(app, ["evidence", str(target), "--post", "twitter2017-sample:1"])
    assert '"file": "pgim-sample.txt"' in shown.stdout
    assert "knowledge retriever" in shown.stdout
    assert "Tennessee" in shown.stdout
    other = runner.invoke(app, [*command[:3], str(data / "snap-sample.txt"), *command[4:]])
    assert other.exit_code == 2
    assert "none of its 3 texts belongs to a post" in other.stderr
    some = tmp_path / "posts.txt"
    some.write_text("".join(Path(posts).read_text().partition("IMGID:16_05_15_1059")[:1]))
    part = runner.invoke(app, [*command[:3], str(some), *command[4:]])
    assert "1 posts, 1 with a text; 2 texts belong to none of them" in part.stderr
    assert "no post of these words, in line 1: Got to love soccer" in part.stderr


def test_names_come_first_in_mode_entities() -> None:
    command = ["retrieve", "--text", "so glad to see #TheHeartOfTheAndes today", "--mode", "entities", "--json"]
    found = json.loads(runner.invoke(app, command).stdout)
    assert found["evidence"][0]["title"] == "The Heart of the Andes"
    wrong = runner.invoke(app, [*command[:-2], "nouns"])
    assert wrong.exit_code == 2
    assert "sentences, entities or iterative" in wrong.stderr


def test_a_corpus_is_built_and_described(tmp_path: Path, data: Path) -> None:
    folder = tmp_path / "corpus"
    done = runner.invoke(app, ["corpus", "build", str(folder), "--articles", str(data / "articles.jsonl")])
    assert done.exit_code == 0, done.output
    info = runner.invoke(app, ["corpus", "info", str(folder), "--json"])
    articles = [line for line in (data / "articles.jsonl").read_text().splitlines() if line.strip()]
    assert json.loads(info.stdout)["articles"] == len(articles)
    again = runner.invoke(app, ["corpus", "build", str(folder), "--articles", str(data / "articles.jsonl")])
    assert again.exit_code == 2
    assert "corpus" in again.stderr


def test_a_corpus_is_changed_checked_and_exported(tmp_path: Path, small_corpus: Path) -> None:
    folder = str(shutil.copytree(small_corpus, tmp_path / "corpus"))
    new = tmp_path / "new.jsonl"
    new.write_text('{"id": "z1", "title": "Zorblax", "paragraphs": ["Zorblax is new."]}\n')
    for command, said in (
        (["add", folder, "--articles", str(new)], "1 articles added"),
        (["replace", folder, "--articles", str(new)], "1 replaced"),
        (["remove", folder, "z1"], "1 removed"),
        (["compact", folder], "MB"),
        (["export", folder, str(tmp_path / "out.jsonl.zst")], "articles"),
    ):
        done = runner.invoke(app, ["corpus", *command])
        assert done.exit_code == 0, done.output
        assert said in done.stderr
    whole = runner.invoke(app, ["corpus", "verify", folder])
    assert whole.exit_code == 0
    assert "whole" in whole.stdout
    data = max((Path(folder) / "passages.lance" / "data").iterdir(), key=lambda p: p.stat().st_size)
    data.write_bytes(data.read_bytes()[:-100])
    damaged = runner.invoke(app, ["corpus", "verify", folder])
    assert damaged.exit_code == 1
    assert "passages" in damaged.stdout


def test_texts_and_pictures_are_searched_by_either(tmp_path: Path, data: Path, clip: ImageEncoder) -> None:
    shutil.copy(DEMO_POSTS.parent / "pictures" / "andes.jpg", tmp_path / "andes.jpg")
    (tmp_path / "images.jsonl").write_text('{"file": "andes.jpg", "title": "London"}\n')
    folder, photo, encoder = str(tmp_path / "corpus"), str(tmp_path / "andes.jpg"), ["--image-encoder", clip.name]
    sources = ["--articles", str(data / "articles.jsonl"), "--images", str(tmp_path / "images.jsonl")]
    assert runner.invoke(app, ["corpus", "build", folder, *sources, *encoder]).exit_code == 0
    across = ["retrieve", "--corpus", folder, *encoder, "-k", "2", "--json"]
    early = runner.invoke(app, [*across, "--image", photo, "--search", "texts"])
    assert early.exit_code == 2
    assert "moreie corpus embed" in early.stderr
    done = runner.invoke(app, ["corpus", "embed", folder, *encoder])
    assert done.exit_code == 0, done.output
    assert "introductions embedded" in done.stderr
    assert "embedded introductions" in runner.invoke(app, ["corpus", "info", folder]).stdout
    (tmp_path / "new.jsonl").write_text('{"id": "z1", "title": "Zorblax", "paragraphs": ["Zorblax is new."]}\n')
    added = runner.invoke(app, ["corpus", "add", folder, "--articles", str(tmp_path / "new.jsonl")])
    assert "1 introductions are not embedded" in added.stderr
    assert "does the other 1" in " ".join(runner.invoke(app, ["corpus", "info", folder]).stdout.split())
    found = {
        search: json.loads(runner.invoke(app, [*across, *asked, "--search", search]).stdout)
        for search, asked in (("texts", ["--image", photo]), ("pictures", ["--image", photo, "--text", "London"]))
    }
    assert [e["retriever"] for e in found["texts"]["evidence"]] == ["image", "image"]
    assert "1 introductions are not embedded" in found["texts"]["warnings"][0]
    assert {e["image"] for e in found["texts"]["evidence"]} == {None}
    assert [e["image"] for e in found["pictures"]["evidence"]] == ["andes.jpg", "andes.jpg"]
    table = runner.invoke(app, ["retrieve", "--corpus", folder, *encoder, "--text", "x", "--search", "pictures"])
    assert "text → picture retriever" in table.stdout
    pictured = runner.invoke(app, ["extract", "--text", "London", "--image", photo, "--corpus", folder])
    assert pictured.exit_code == 2, "the model's image encoder is another one"
    assert "images and introductions were embedded by" in " ".join(pictured.stderr.split())
    unpictured = runner.invoke(app, ["extract", "--text", "London", "--corpus", folder])
    assert unpictured.exit_code == 0, "a post without a picture asks for none"


def test_embedded_introductions_do_not_hinder_a_model_with_another_encoder(
    tmp_path: Path, small_corpus: Path, clip: ImageEncoder
) -> None:
    folder = str(shutil.copytree(small_corpus, tmp_path / "corpus"))
    assert runner.invoke(app, ["corpus", "embed", folder, "--image-encoder", clip.name]).exit_code == 0
    done = runner.invoke(app, ["extract", "--text", "Angela Merkel visits London", "--corpus", folder, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["evidence"]


def test_data_check_counts(data: Path) -> None:
    files = ["twitter2017-sample.txt", "mnre-sample.txt", "snap-sample.txt", "wikidiverse-sample.json"]
    done = runner.invoke(app, ["data", "check", *(str(data / file) for file in files)])
    assert done.exit_code == 0
    for shown in ("published", "mentions", "relations", "172", "193"):
        assert shown in done.stdout


@pytest.mark.parametrize(
    "command, said",
    [
        (["extract"], "either --text"),
        (["extract", "--text", "x", "--corpus", "nowhere"], "nowhere"),
        (["extract", "--text", "x", "--model", "nowhere"], "nowhere"),
        (["extract", "--input", "nowhere.jsonl"], "nowhere.jsonl"),
        (["extract", "--text", "x", "--certainty", "0"], "certainty 0: give a probability above 0"),
        (["extract", "--text", "x", "--certainty", "1.5"], "--certainty"),
        (["extract", "--text", "x", "--threshold", "0"], "threshold 0: give a probability from 0.01"),
        (["retrieve"], "give --text"),
        (["retrieve", "--image", "x.png", "--search", "sounds"], "--search sounds: texts or pictures"),
        (["retrieve", "--text", "x", "--search", "pictures"], "without a text tower"),
        (["retrieve", "--image", "x.png", "--search", "texts"], "openai/clip-vit-base-patch32"),
        (["retrieve", "--text", "x", "--search", "pictures", "--mode", "entities"], "do not go with --search"),
        (["retrieve", "--input", "x.txt", "--save", "y", "--search", "texts"], "--search is for --text and --image"),
        (["corpus", "embed", "nowhere", "--image-encoder", "x"], "nowhere"),
        (["train", "nowhere.yaml"], "nowhere.yaml"),
        (["corpus", "info", "nowhere"], "nowhere"),
        (["corpus", "build", "there", "--articles", "nowhere.jsonl"], "nowhere.jsonl"),
        (["corpus", "build", "there"], "--articles, --dump or --images"),
        (["corpus", "verify", "nowhere"], "nowhere"),
        (["corpus", "remove", "nowhere", "1"], "nowhere"),
        (["corpus", "export", "nowhere", "out.jsonl"], "nowhere"),
        (["corpus", "verify", "milvus://localhost:1/wiki"], "no Milvus answers there"),
        (["corpus", "build", "milvus://localhost:1/wiki", "--dump", __file__], "no Milvus answers there"),
        (["corpus", "pictures", "nowhere", "out.jsonl"], "nowhere"),
        (["corpus", "anchors", "nowhere"], "nowhere"),
        (["corpus", "build", "there", "--dump", __file__, "--workers", "many"], "--workers many"),
        (["evidence", __file__], "no evidence file"),
        (["data", "check", "nowhere.txt"], "nowhere.txt"),
        (["check", "nowhere.txt"], "nowhere.txt"),
        (["check", "nowhere.yaml"], "nowhere.yaml"),
        (["init", "x", "--data", "nowhere.jsonl"], "nowhere.jsonl"),
        (["retrieve", "--recipe", "nowhere.yaml"], "nowhere.yaml"),
        (["retrieve", "--recipe", "x.yaml", "--text", "x"], "--recipe goes with --corpus only"),
        (["attach", "nowhere.jsonl", "--input", __file__, "--name", "x", "--save", "x.zst"], "unknown format"),
        (["report", "nowhere"], "nowhere"),
        (["recompute", "nowhere"], "nowhere"),
        (["reproduce", "snap"], "no such recipe"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_input_ends_with_a_clear_error(
    command: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = runner.invoke(app, command)
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.output


def test_a_misspelt_recipe_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("task: ner\noutputt: runs\n")
    done = runner.invoke(app, ["train", str(path)])
    assert done.exit_code == 2
    assert "outputt" in done.stderr


@pytest.mark.parametrize(
    "options, said",
    [
        (["--batch-size", "0"], "batch size 0"),
        (["--queue-size", "0"], "queue size 0"),
        (["--token-file", "nowhere"], "nowhere: tokens cannot be read"),
        (["--cors-origin", "app.example"], "CORS origin 'app.example'"),
        (["--certainty", "1.5"], "--certainty"),
        (["--threshold", "1.5"], "--threshold"),
    ],
)
def test_serve_says_what_is_wrong_before_it_loads_anything(options: list[str], said: str) -> None:
    pytest.importorskip("fastapi", reason="the serve extra is not installed")
    done = runner.invoke(app, ["serve", *options])
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
