"""Recipes: what is wrong with one is said before the first step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from moreie.errors import RecipeError
from moreie.shipped import TEXT_ENCODER
from moreie.training.mention_types import typing_expert
from moreie.training.recipe import load_recipe, read_recipe


@pytest.fixture
def content(data: Path, tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "posts.txt").write_text((data / "twitter2017-sample.txt").read_text())
    files = {"posts": "posts.txt"}
    return {
        "task": "ner",
        "output": "runs",
        "encoder": "some/encoder",
        "data": {"train": files, "validation": files},
        "experts": [{"name": "baseline"}],
    }


def write(content: dict[str, Any], folder: Path) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_paths_start_at_the_recipe_and_hub_ids_stay(content: dict[str, Any], tmp_path: Path) -> None:
    recipe = load_recipe(write({**content, "seeds": 3}, tmp_path))
    assert recipe.output == tmp_path / "runs"
    assert recipe.data.train.posts == tmp_path / "posts.txt"
    assert recipe.encoder == "some/encoder"
    assert recipe.seeds == (3,)
    assert recipe.members == ("baseline",)
    del content["encoder"]
    assert load_recipe(write(content, tmp_path)).encoder == str(TEXT_ENCODER), "the one that ships"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"encodre": "x"}, "encodre: unknown key; is it misspelt"),
        ({"training": {"epochz": 3}}, "training.epochz: unknown key"),
        ({"training": {"epochs": 0}}, "training.epochs"),
        ({"task": "nerd"}, "task"),
        ({"experts": []}, "experts"),
        ({"experts": [{"name": "a"}, {"name": "a"}]}, "two experts share a name"),
        ({"experts": [{"name": "t", "view": {"retriever": "text"}}]}, "evidence has no such file"),
        ({"experts": [{"name": "a", "start_from": "b"}]}, "not an expert above it"),
        ({"mixture": ["nobody"]}, "nobody"),
        ({"training": {"label_smoothing": 0.1}}, "label_smoothing is for RE only"),
        ({"training": {"layer_decay": 1.5}}, "training.layer_decay"),
        ({"experts": [{"name": "a", "two_view": {"alpha": 0.5}}]}, "no two views"),
        ({"training": {"adversarial": -1}}, "training.adversarial"),
        ({"training": {"adversarial": 1, "r_drop": 1}}, "expert baseline: adversarial and r_drop exclude each other"),
        ({"task": "re", "gate": {"level": "token"}}, "token-level gate is for NER only"),
        ({"gate": {"cross_fit": True, "held_out": 0.1}}, "exclude each other"),
    ],
)
def test_what_is_wrong_is_named(content: dict[str, Any], tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        load_recipe(write({**content, **change}, tmp_path))


def test_who_gives_types_is_a_folder_beside_the_recipe(content: dict[str, Any], tmp_path: Path) -> None:
    typed = {"name": "t", "view": {"retriever": None, "markers": "typed"}}
    data = {**content["data"], "mention_types": "ner"}
    right = {**content, "task": "re", "data": data, "experts": [typed]}
    assert read_recipe(write(right, tmp_path)).data.mention_types == tmp_path / "ner"
    for wrong, problem in (
        (right, "data.mention_types: no such folder"),
        ({**right, "task": "ner"}, "data.mention_types is for RE only"),
        ({**right, "experts": [{"name": "t"}]}, "no expert's view has markers: typed"),
    ):
        with pytest.raises(RecipeError, match=problem):
            load_recipe(write(wrong, tmp_path))


def test_two_views_and_perturbations_exclude_each_other(content: dict[str, Any], tmp_path: Path) -> None:
    content["data"]["train"] = content["data"]["validation"] = {"posts": "posts.txt", "evidence": {"text": "posts.txt"}}
    expert = {"name": "t", "view": {"retriever": "text"}, "two_view": {}, "training": {"adversarial": 1}}
    with pytest.raises(RecipeError, match="expert t: adversarial and two_view exclude each other"):
        load_recipe(write({**content, "experts": [expert]}, tmp_path))


def test_heads_over_spans(content: dict[str, Any], tmp_path: Path) -> None:
    path, head = tmp_path / "recipe.yaml", {"scorer": "endpoints", "longest": 6}
    other = {"name": "other", "start_from": content["experts"][0]["name"], "spans": head}
    path.write_text(yaml.safe_dump({**content, "experts": [*content["experts"], other]}))
    with pytest.raises(RecipeError, match="another head"):
        read_recipe(path)
    path.write_text(yaml.safe_dump({**content, "task": "re", "experts": [{"name": "spans", "spans": head}]}))
    with pytest.raises(RecipeError, match="spans is for NER only"):
        read_recipe(path)


def test_lineage_is_the_mixture_and_what_it_starts_from(content: dict[str, Any], tmp_path: Path) -> None:
    names = {"start": None, "other": None, "middle": "start", "last": "middle"}
    experts = [{"name": n} | ({"start_from": s} if s else {}) for n, s in names.items()]
    recipe = load_recipe(write({**content, "experts": experts, "mixture": ["last"]}, tmp_path))
    assert [e.name for e in recipe.lineage] == ["start", "middle", "last"]


def test_files_that_are_not_there(content: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such recipe"):
        load_recipe(tmp_path / "none.yaml")
    (tmp_path / "posts.txt").unlink()
    with pytest.raises(RecipeError, match=r"posts\.txt is not there"):
        load_recipe(write(content, tmp_path))
    (tmp_path / "recipe.yaml").write_text("a: [1")
    with pytest.raises(RecipeError, match="not readable as YAML"):
        load_recipe(tmp_path / "recipe.yaml")


RECIPES = sorted((Path(__file__).parents[2] / "experiments" / "recipes").glob("*.yaml"))
MARKERS = {f"mnre-minilm-{markers}": markers for markers in ("plain", "typed")}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_recipes_of_the_project_are_right(path: Path) -> None:
    recipe = read_recipe(path)
    dataset = path.stem.partition("-")[0]
    assert recipe.task == ("re" if dataset == "mnre" else "ner")
    assert recipe.output.name == path.stem
    assert all(files.posts.parent.name == dataset for files in recipe.splits.values())
    if recipe.data.mention_types:
        assert typing_expert(recipe.data.mention_types).parent == recipe.data.mention_types
    if path.stem in MARKERS:
        assert recipe.members == ("baseline",)
        return
    if path.stem.endswith("-trials"):
        assert recipe.members[0] == "baseline"
        assert all(expert.view.retriever is None for expert in recipe.experts)
        return
    if path.stem.endswith("-knowledge-training"):
        own = {expert.name: expert for expert in recipe.experts}
        assert len({own[name].view for name in recipe.members}) == 1, "all read the same"
        assert own["baseline"].view.retriever is None
        return
    if path.stem.endswith("-longer"):
        own = {expert.name: expert for expert in recipe.experts}
        for name in recipe.members:
            assert own[name].start_from == name.removesuffix("-longer")
            assert own[name].view == own[name.removesuffix("-longer")].view, "nothing but time differs"
        joint = read_recipe(path.with_name(f"{path.stem.removesuffix('longer')}gates.yaml")).gates["joint"].joint
        settings = ("epochs", "batch_size", "learning_rate", "head_learning_rate", "crf_learning_rate")
        assert joint is not None
        for name in recipe.members:
            training = own[name].training or recipe.training
            assert [getattr(training, s) for s in settings] == [getattr(joint, s) for s in settings]
        return
    if path.stem.endswith(("-two-heads", "-three-readings")):
        others = ("plain-words-knowledge",) if path.stem.endswith("-three-readings") else ()
        assert recipe.members == ("knowledge", "spans-knowledge", *others)
        views = [replace(expert.view, words="written") for expert in recipe.experts if expert.name in recipe.members]
        assert views == views[:1] * len(views), "all read the same"
        assert any(expert.name == "baseline" for expert in recipe.experts)
        return
    if path.stem.endswith("-levitated"):
        assert {expert.view.markers for expert in recipe.experts} == {"levitated"}
        plain = read_recipe(path.with_name("mnre-minilm.yaml")).model_dump(exclude={"output", "seeds"})
        own = recipe.model_dump(exclude={"output", "seeds"})
        for expert in (*plain["experts"], *own["experts"]):
            expert["view"].pop("markers")
        assert own == plain, "nothing else differs"
    assert recipe.members[0] == "baseline"
    assert len(recipe.members) > 1
    if path.stem.endswith(("minilm", "large")):
        assert recipe.members == ("baseline", "text", "image"), "the paper's experts"
    assert recipe.retrieval is not None
    for expert in recipe.experts:
        retriever = expert.view.retriever
        if retriever in recipe.retrieval.attached:
            assert recipe.retrieval.attached[retriever].texts.keys() == recipe.splits.keys()
        elif retriever:
            settings = recipe.retrieval.evidence[retriever]
            assert settings.k >= expert.view.k
            assert not settings.keep_copies


def test_the_recipes_of_markers_differ_in_nothing_else() -> None:
    folder = RECIPES[0].parent
    both = {markers: read_recipe(folder / f"{name}.yaml") for name, markers in MARKERS.items()}
    for markers, recipe in both.items():
        assert {e.view.markers for e in recipe.experts} == {markers}
    views = {markers: [e.model_dump(exclude={"view"}) for e in recipe.experts] for markers, recipe in both.items()}
    whole = read_recipe(folder / "mnre-minilm.yaml")
    assert views["plain"] == views["typed"] == [e.model_dump(exclude={"view"}) for e in whole.experts[:2]]
    parts = {"output": True, "experts": True, "data": {"mention_types"}}
    assert both["plain"].model_dump(exclude=parts) == both["typed"].model_dump(exclude=parts)
    for part in ("task", "encoder", "adapter", "training", "gate"):
        assert getattr(both["typed"], part) == getattr(whole, part)


def test_every_data_set_has_a_recipe_of_the_paper_and_one_that_needs_no_hub() -> None:
    names = {path.stem for path in RECIPES}
    for dataset in ("twitter2015", "twitter2017", "mnre", "snap", "wikidiverse"):
        assert {f"{dataset}-minilm", f"{dataset}-xlm-roberta-large"} <= names


def test_retrieval_settings_of_a_recipe(content: dict[str, Any], tmp_path: Path) -> None:
    retrieval = {"corpus": "wiki", "evidence": {"text": {"mode": "entities", "k": 5}}}
    recipe = read_recipe(write({**content, "retrieval": retrieval}, tmp_path))
    assert recipe.retrieval is not None
    assert recipe.retrieval.corpus == str(tmp_path / "wiki")
    assert recipe.retrieval.evidence["text"].k == 5
    uri = read_recipe(write({**content, "retrieval": {**retrieval, "corpus": "milvus://host:1/wiki"}}, tmp_path))
    assert uri.retrieval is not None
    assert uri.retrieval.corpus == "milvus://host:1/wiki"
    with pytest.raises(RecipeError, match="mode"):
        read_recipe(write({**content, "retrieval": {"evidence": {"text": {"mode": "guess"}}}}, tmp_path))


def test_a_gate_that_reads_pictures_names_an_image_encoder(content: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"gate: .*the input 'image' needs an image_encoder"):
        load_recipe(write({**content, "gate": {"inputs": ["image"]}}, tmp_path))
    with pytest.raises(RecipeError, match="'image' is not among the inputs"):
        load_recipe(write({**content, "gate": {"image_encoder": "some/encoder"}}, tmp_path))
    gate = {"inputs": ["image"], "image_encoder": "vision"}
    assert load_recipe(write({**content, "gate": gate}, tmp_path)).gate.image_encoder == "vision", "a hub id"
    (tmp_path / "vision").mkdir()
    assert load_recipe(write({**content, "gate": gate}, tmp_path)).gate.image_encoder == str(tmp_path / "vision")
    files = {"posts": "posts.txt", "images": "pictures"}
    data = {"train": files, "validation": files}
    load_recipe(write({**content, "data": data}, tmp_path))
    with pytest.raises(RecipeError, match="pictures is not there"):
        load_recipe(write({**content, "data": data, "gate": gate}, tmp_path))
