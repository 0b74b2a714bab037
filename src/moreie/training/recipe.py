"""Recipes: everything a training run needs, in one YAML file, checked before the first step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from moreie.encoders.adapters import AdapterConfig
from moreie.errors import RecipeError
from moreie.models.assembly import View
from moreie.models.gate import GateChoice, GateInput, GateLevel
from moreie.models.span_scores import SpanHead
from moreie.retrieval.settings import RetrievalSettings
from moreie.shipped import TEXT_ENCODER


class Section(BaseModel):
    """Part of a recipe; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SplitFiles(Section):
    """Files of one split. `evidence` maps a view's retriever to the evidence file made by `moreie retrieve`."""

    posts: Path
    captions: Path | None = None
    caption_field: str = "caption"
    images: Path | None = None
    evidence: dict[str, Path] = Field(default_factory=dict)


class DataFiles(Section):
    train: SplitFiles
    validation: SplitFiles
    test: SplitFiles | None = None
    labels: Path | None = None
    """MNRE's `rel2id.json`; without it the labels are those of the training split."""
    mention_types: Path | None = None
    """RE with typed markers: folder of a trained NER mixture or expert that gives mentions without a type one."""


class Attached(Section):
    """Texts that belong to posts, as `moreie attach` reads them; `texts` maps a split to its file."""

    texts: dict[Literal["train", "validation", "test"], Path]
    field: str | None = None
    title: str = ""


class Retrieval(Section):
    """How `moreie reproduce` makes the evidence files that are not there; `moreie train` only reads them.

    `evidence` maps a view's retriever to its settings, `attached` one whose evidence is not retrieved to the texts it
    is. `corpus`: folder or URI of the corpus that is searched.
    """

    corpus: str | None = None
    evidence: dict[str, RetrievalSettings] = Field(default_factory=dict)
    attached: dict[str, Attached] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_way(self) -> Retrieval:
        if both := self.evidence.keys() & self.attached.keys():
            raise ValueError(f"{sorted(both)} cannot be both retrieved and attached")
        return self


class Teacher(Section):
    """A trained NER expert whose marginals the student learns to match, on the training posts and `extra_posts`."""

    expert: Path
    weight: Annotated[float, Field(gt=0, le=1)] = 0.5
    extra_posts: tuple[Path, ...] = ()


class TwoView(Section):
    """Cooperative two-view training (CLNER: Wang et al., ACL 2021).

    Each post is read with its evidence and without: α (L_evidence + L_plain) + (1 − α) τ² KL(p_evidence ‖ p_plain), the
    evidence view being the teacher.
    """

    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    temperature: Annotated[float, Field(gt=0)] = 1.0


class Optimisation(Section):
    """Optimisation settings; learning rates decay linearly after `warmup` (a share of all steps).

    `precision`: auto is bfloat16 where the machine runs it natively.
    """

    epochs: Annotated[int, Field(ge=1)] = 10
    batch_size: Annotated[int, Field(ge=1)] = 16
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    head_learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    crf_learning_rate: Annotated[float, Field(gt=0)] = 1e-2
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    evidence_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of training posts shown without their evidence, so that an expert stays right when none is found."""
    patience: Annotated[int, Field(ge=1)] = 3
    """Epochs without a better validation F1 after which training stops."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """How fast an encoder layer learns relative to the one above it."""
    word_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the post's sub-tokens masked at each step; its evidence stays."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """RE only: share of the target spread over all relations."""
    r_drop: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the divergence of two passes under different dropout (Wu et al., NeurIPS 2021)."""
    adversarial: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """ε: L2 norm of a perturbation of each example's word embeddings that the loss is to bear (FGM: Miyato et al.,
    ICLR 2017)."""
    average: Literal["none", "ema", "swa"] = "none"
    """Score and keep averaged weights: exponentially after each step, or the mean of the epochs so far."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] = 0.999
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"


class ExpertRecipe(Section):
    """One expert.

    `start_from` names an expert further up whose weights this one starts with (its epochs come on top of that one's).
    `training` replaces the recipe's own settings for this expert. `two_view` trains it to be right without its evidence
    as well. `spans` (NER) gives it a head over whole spans instead of one over words.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    view: View = View(retriever=None)
    start_from: str | None = None
    training: Optimisation | None = None
    two_view: TwoView | None = None
    spans: SpanHead | None = None


class Joint(Section):
    """Experts and gate trained together, from where each of them stood alone, for the mixture's likelihood."""

    epochs: Annotated[int, Field(ge=1)] = 1
    batch_size: Annotated[int, Field(ge=1)] = 16
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    head_learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    crf_learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    gate_learning_rate: Annotated[float, Field(gt=0)] = 1e-3

    @property
    def optimisation(self) -> Optimisation:
        """The settings that experts know as well."""
        return Optimisation(**self.model_dump(exclude={"gate_learning_rate"}))


class GateRecipe(Section):
    """How the gate is trained: on expert outputs for posts that no expert was trained on.

    `held_out`: share of the training posts kept away from the experts for the gate. `cross_fit`: the training posts
    are split into `folds` by their text, experts trained without a fold speak on it, and the gate learns from what
    they said; the final experts are trained on all posts. Without either the gate is trained on the validation split;
    its scores there are then cross-validated over `folds`.

    `inputs`: see `models.gate_inputs`. `image_encoder`, a hub id or a folder, embeds the posts' pictures for the input
    `image`: those in `data.<split>.images`, or that the posts themselves name. `level`: one weight an expert and post,
    or (NER) an expert and word. `choice`: the mixture of all experts, or only the one with the greatest weight.
    `joint`: before the gate is fitted, the experts go on together under a gate that learns with them; those trained
    alone stay as they are.
    """

    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.0
    cross_fit: bool = False
    folds: Annotated[int, Field(ge=2)] = 5
    inputs: tuple[GateInput, ...] = ("post", "entropy")
    image_encoder: str | None = None
    level: GateLevel = "sequence"
    choice: GateChoice = "soft"
    joint: Joint | None = None

    @model_validator(mode="after")
    def _one_source(self) -> GateRecipe:
        if self.cross_fit and self.held_out:
            raise ValueError("cross_fit and held_out exclude each other: cross-fitting uses all training posts")
        if self.cross_fit and self.joint:
            raise ValueError("cross_fit and joint exclude each other: no expert of a fold is trained with the others")
        return self

    @model_validator(mode="after")
    def _pictures(self) -> GateRecipe:
        if self.reads_pictures and self.image_encoder is None:
            raise ValueError("the input 'image' needs an image_encoder: a hub id, or a folder")
        if self.image_encoder is not None and not self.reads_pictures:
            raise ValueError(f"image_encoder is given, but 'image' is not among the inputs {list(self.inputs)}")
        return self

    @property
    def reads_pictures(self) -> bool:
        return "image" in self.inputs

    @property
    def from_validation(self) -> bool:
        """Is the gate trained on the validation split?"""
        return not self.held_out and not self.cross_fit


def _seeds(value: Any) -> Any:
    return [value] if isinstance(value, int) else value


class Recipe(Section):
    """A whole run: data, encoder, experts, optimisation, gate."""

    task: Literal["ner", "re"]
    output: Path
    encoder: str = str(TEXT_ENCODER)
    """A hub id or a folder; the encoder that ships with the project where it is left out."""
    adapter: AdapterConfig | None = None
    data: DataFiles
    experts: tuple[ExpertRecipe, ...] = Field(min_length=1)
    training: Optimisation = Field(default_factory=Optimisation)
    gate: GateRecipe = Field(default_factory=GateRecipe)
    gates: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")], GateRecipe] = Field(default_factory=dict)
    """Other gates over the same experts, by name, to be compared with `gate`, which is the mixture's."""
    mixture: tuple[str, ...] = ()
    """Experts in the mixture; all of them when empty."""
    retrieval: Retrieval | None = None
    teacher: Teacher | None = None
    swapped_none: bool = False
    """RE only: learn from training pairs without a relation in the other direction too. MNRE gives them with the head
    before the tail, so that an expert takes any pair the other way round for one with a relation."""
    seeds: Annotated[tuple[int, ...], BeforeValidator(_seeds)] = (1,)

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        names = [expert.name for expert in self.experts]
        if len(set(names)) != len(names):
            raise ValueError(f"two experts share a name: {names}")
        if unknown := set(self.mixture) - set(names):
            raise ValueError(f"mixture names {sorted(unknown)}, but the experts are {names}")
        if self.teacher and self.task != "ner":
            raise ValueError("a teacher is for NER only")
        if self.swapped_none and self.task != "re":
            raise ValueError("swapped_none is for RE only")
        if any(gate.level == "token" for gate in self.every_gate) and self.task != "ner":
            raise ValueError("a token-level gate is for NER only: a pair has one answer")
        if self.gates and len(self.members) < 2:
            raise ValueError("gates need a mixture of at least two experts")
        for name, gate in self.gates.items():
            if gate.held_out != self.gate.held_out:
                raise ValueError(
                    f"gates.{name}: held_out is not that of `gate`, and experts are trained once for all gates"
                )
        if self.data.mention_types and self.task != "re":
            raise ValueError("data.mention_types is for RE only: an NER expert learns types, which have to be gold")
        if self.data.mention_types and not any(e.view.markers == "typed" for e in self.experts):
            raise ValueError("data.mention_types gives types to typed markers, but no expert's view has markers: typed")
        for index, expert in enumerate(self.experts):
            if expert.start_from and expert.start_from not in names[:index]:
                raise ValueError(f"expert {expert.name} starts from {expert.start_from!r}, not an expert above it")
            if expert.two_view and not expert.view.retriever:
                raise ValueError(f"expert {expert.name} reads no evidence, so it has no two views")
            if expert.spans and self.task != "ner":
                raise ValueError(f"expert {expert.name}: spans is for NER only")
            parent = next((e for e in self.experts if e.name == expert.start_from), None)
            if parent and parent.spans != expert.spans:
                raise ValueError(f"expert {expert.name} starts from {parent.name}, which has another head (spans)")
            settings = expert.training or self.training
            if expert.two_view and settings.r_drop:
                raise ValueError(f"expert {expert.name}: two_view and r_drop exclude each other")
            if settings.adversarial and (expert.two_view or settings.r_drop):
                other = "two_view" if expert.two_view else "r_drop"
                raise ValueError(f"expert {expert.name}: adversarial and {other} exclude each other")
            if settings.label_smoothing and self.task != "re":
                raise ValueError("label_smoothing is for RE only: a smoothed tag sequence would not be a legal one")
        for expert in self.experts:
            for split, files in self.splits.items():
                if expert.view.retriever and expert.view.retriever not in files.evidence:
                    raise ValueError(
                        f"expert {expert.name} reads {expert.view.retriever!r} evidence, "
                        f"but data.{split}.evidence has no such file"
                    )
        return self

    @property
    def splits(self) -> dict[str, SplitFiles]:
        """Files by the split's name, those that the recipe has."""
        named = {"train": self.data.train, "validation": self.data.validation, "test": self.data.test}
        return {name: files for name, files in named.items() if files is not None}

    @property
    def every_gate(self) -> tuple[GateRecipe, ...]:
        """The mixture's gate and those compared with it."""
        return (self.gate, *self.gates.values())

    def with_gate(self, name: str) -> Recipe:
        """The recipe with the gate of that name of `gates` as its own, and no others."""
        return self.model_copy(update={"gate": self.gates[name], "gates": {}})

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the experts in the mixture, in the order of `experts`."""
        return tuple(e.name for e in self.experts if e.name in self.mixture or not self.mixture)

    @property
    def lineage(self) -> tuple[ExpertRecipe, ...]:
        """The experts in the mixture and those they start from, in the order of `experts`."""
        needed = set(self.members)
        for expert in reversed(self.experts):
            if expert.name in needed and expert.start_from:
                needed.add(expert.start_from)
        return tuple(e for e in self.experts if e.name in needed)


def load_recipe(path: Path) -> Recipe:
    """Read a recipe whose files are to be there; relative paths in it start at the recipe's folder.

    Raises:
        RecipeError: unreadable YAML, an unknown key, a value out of range, a file that is not there.
    """
    recipe = read_recipe(path)
    for files in recipe.splits.values():
        reads_pictures = any(gate.reads_pictures for gate in recipe.every_gate)
        pictures = [files.images] if files.images and reads_pictures else []
        for file in [files.posts, *files.evidence.values(), *pictures]:
            if not file.exists():
                raise RecipeError(f"{path}: {file} is not there")
    if recipe.data.mention_types and not recipe.data.mention_types.is_dir():
        raise RecipeError(f"{path}: data.mention_types: no such folder as {recipe.data.mention_types}")
    return recipe


def read_recipe(path: Path) -> Recipe:
    """Read a recipe, whether or not its files are there.

    Raises:
        RecipeError: unreadable YAML, an unknown key, a value out of range.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe") from None
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise RecipeError(f"{path}: not readable as YAML ({problem})") from problem
    try:
        return Recipe.model_validate(_resolved(content, Path(path).resolve().parent))
    except ValidationError as problem:
        details = "\n".join(f"  {'.'.join(map(str, e['loc']))}: {_explain(e)}" for e in _causes(problem))
        raise RecipeError(f"{path}:\n{details}") from problem


def _causes(problem: ValidationError) -> list[Any]:
    """The errors, less those that only follow from others: a list is "too short" without its faulty items."""
    errors = problem.errors()
    faulty = [e["loc"] for e in errors]
    return [
        e
        for e in errors
        if e["type"] != "too_short"
        or not any(len(loc) > len(e["loc"]) and loc[: len(e["loc"])] == e["loc"] for loc in faulty)
    ]


def _explain(error: Any) -> str:
    return "unknown key; is it misspelt?" if error["type"] == "extra_forbidden" else str(error["msg"])


PATH_KEYS = frozenset(
    {"posts", "captions", "images", "labels", "mention_types", "output", "expert", "encoder", "image_encoder"}
)


def _resolved(node: Any, folder: Path, key: str = "") -> Any:
    """The recipe with its relative paths made absolute; an encoder stays a hub id unless such a folder exists."""
    if isinstance(node, dict):
        return {
            k: {name: _path(value, folder) for name, value in v.items()}
            if k in ("evidence", "texts") and isinstance(v, dict)
            else [_path(value, folder) for value in v]
            if k == "extra_posts" and isinstance(v, list)
            else _resolved(v, folder, k)
            for k, v in node.items()
        }
    if isinstance(node, list):
        return [_resolved(item, folder) for item in node]
    if key in ("encoder", "image_encoder") and isinstance(node, str) and not (folder / node).is_dir():
        return node
    if key == "corpus" and isinstance(node, str) and ":" not in node:
        return _path(node, folder)
    return _path(node, folder) if key in PATH_KEYS else node


def _path(value: Any, folder: Path) -> Any:
    return str(folder / value) if isinstance(value, str) else value
