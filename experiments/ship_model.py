"""Assemble the model that ships with the package from trained runs (one seed each), and write its card.

python experiments/ship_model.py --ner runs/twitter2017-minilm/seed-1 --relations runs/mnre-minilm/seed-1 \
    --out src/moreie/shipped/models/default
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from moreie.encoders.images import ImageEncoder
from moreie.encoders.precision import default_device
from moreie.evaluation.summary import read_summary
from moreie.extractor import Extractor
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.models.expert import EncoderPool
from moreie.models.mixture import load_mixture, read_spec
from moreie.shipped import DEMO_CORPUS, IMAGE_ENCODER

# Where a picture of the corpus counts as evidence: generic photographs against the demo corpus have their best
# similarity at 0.32 (95th percentile) and 0.50 (99th), copies of pictures in the corpus at 0.90 and more.
IMAGE_FLOOR = 0.5


def write_card(extractor: Extractor, folder: Path, results: Path, recipes: Sequence[str]) -> None:
    """`README.md` of a model folder, its tables the `results` of the recipes that its mixtures were trained by."""
    assert extractor.relations is not None
    groups = []
    shipped = [row for row in read_summary(results) if row.recipe in recipes]
    for (dataset, split), rows in groupby(shipped, key=lambda row: (row.dataset, row.split)):
        own = list(rows)
        types = list(own[0].per_type) if own[0].task == "ner" else []
        title = f"{dataset}, {split} split ({'entities' if own[0].task == 'ner' else 'relations'})"
        groups.append({"title": title, "types": types, "rows": own, "command": own[0].command})
    experts = [*extractor.ner.experts, *extractor.relations.experts]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True
    )
    card = environment.get_template("model_card.md.j2").render(
        name=extractor.name,
        megabytes=sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6,
        image_floor=IMAGE_FLOOR,
        budgets=" and ".join(
            str(b) for b in dict.fromkeys(e.spec.view.budget for e in experts if e.spec.view.retriever)
        ),
        groups=groups,
        mixtures=[read_spec(folder / task) for task in ("ner", "relations")],
    )
    (folder / "README.md").write_text(card + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ner", type=Path, required=True)
    parser.add_argument("--relations", type=Path, required=True)
    parser.add_argument("--name", default="moreie-minilm-1")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    pool = EncoderPool(default_device())
    extractor = Extractor(
        load_mixture(arguments.ner, pool),
        load_mixture(arguments.relations, pool),
        corpus=KnowledgeCorpus.open(DEMO_CORPUS),
        image_encoder=ImageEncoder.from_pretrained(IMAGE_ENCODER),
        name=arguments.name,
        k=10,
        image_floor=IMAGE_FLOOR,
    )
    for task in ("ner", "relations"):
        shutil.rmtree(arguments.out / task, ignore_errors=True)
    extractor.save_pretrained(arguments.out)
    recipes = [seed.resolve().parent.name for seed in (arguments.ner, arguments.relations)]
    write_card(extractor, arguments.out, arguments.results, recipes)


if __name__ == "__main__":
    main()
