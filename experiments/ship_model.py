"""Assemble the model that ships with the package from trained runs (one seed each).

python experiments/ship_model.py --ner runs/twitter2017-minilm/seed-1 --relations runs/mnre-minilm/seed-1 \
    --out src/moreie/shipped/models/default
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from moreie.encoders.images import ImageEncoder
from moreie.encoders.precision import default_device
from moreie.extractor import Extractor
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.models.expert import EncoderPool
from moreie.models.mixture import load_mixture
from moreie.shipped import DEMO_CORPUS, IMAGE_ENCODER

# Where a picture of the corpus counts as evidence: generic photographs against the demo corpus have their best
# similarity at 0.32 (95th percentile) and 0.50 (99th), copies of pictures in the corpus at 0.90 and more.
IMAGE_FLOOR = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ner", type=Path, required=True)
    parser.add_argument("--relations", type=Path, required=True)
    parser.add_argument("--name", default="moreie-minilm-1")
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


if __name__ == "__main__":
    main()
