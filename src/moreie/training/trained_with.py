"""What an expert was trained with that no recipe says: the arithmetic, the device, the versions of what computes.

In float32 a seed gives the same expert on every processor that was tried; in bfloat16 it gives another one.
"""

from __future__ import annotations

import json
import logging
from importlib.metadata import version
from pathlib import Path

from transformers import TrainingArguments

from moreie.whole_files import replace_file

FILE = "trained-with.json"
LIBRARIES = ("torch", "transformers")
log = logging.getLogger(__name__)


def note(folder: Path, arguments: TrainingArguments) -> None:
    """Write it into the folder of an expert that has been trained under these arguments."""
    said = {"precision": precision_of(arguments), "device": arguments.device.type}
    versions = {name: version(name) for name in LIBRARIES}
    replace_file(folder / FILE, (json.dumps({**said, "versions": versions}, indent=2) + "\n").encode())
    log.info("%s: trained in %s on a %s", folder, said["precision"], said["device"])


def precision_of(arguments: TrainingArguments) -> str:
    """As a recipe's `precision` has it, what `auto` has become."""
    return "bf16" if arguments.bf16 else "fp16" if arguments.fp16 else "fp32"
