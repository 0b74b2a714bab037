"""torch without what no extraction uses, which is executed as soon as something does."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from moreie.cli.quick_torch import UNUSED


def run(code: str) -> Any:
    """What a fresh process prints as JSON in its last line."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


EXTRACTION = """
import inspect, json, os, sys
before = inspect.getmodule, dict(os.environ)
import moreie.cli.quick_torch as quick_torch
from moreie.cli.extract import extract
extract(text="Kawhi Leonard leads the Toronto Raptors", json=True, attribute={attribute})
from moreie.cli.quick_torch import UNUSED
waiting = [name for name in UNUSED if "__deferred__" in vars(sys.modules.get(name, os))]
annotates = "__deferred__" in vars(sys.modules["numpy._typing"])
import numpy, numpy.typing
annotates = annotates and numpy.typing.NDArray[numpy.float32].__origin__ is numpy.ndarray
kept = annotates and inspect.getmodule is before[0], "OPENBLAS_NUM_THREADS" in os.environ
print(json.dumps([waiting, *kept, "transformers" in sys.modules]))
"""


@pytest.mark.parametrize("attribute", [False, True])
def test_an_extraction_uses_nothing_that_waits(attribute: bool) -> None:
    waiting, same, limited, transformers = run(EXTRACTION.format(attribute=attribute))
    assert waiting == list(UNUSED)
    assert same
    assert not limited
    assert not transformers


COMPILED = """
import json, sys
from moreie.cli.quick_torch import UNUSED, import_torch
import_torch()
import torch
waiting = sum("__deferred__" in vars(sys.modules[name]) for name in UNUSED)
{use}
left = [name for name in UNUSED if name.startswith("torch") and "__deferred__" in vars(sys.modules[name])]
print(json.dumps([waiting, left, found]))
"""


@pytest.mark.parametrize(
    "use",
    [
        "found = torch.compile(lambda x: x + 1, backend='eager')(torch.ones(2)).tolist()",
        "import transformers\nfound = list(torch.cholesky_inverse(torch.empty(2, 2, device='meta')).shape)",
    ],
)
def test_everything_is_there_for_what_works_on_tensors_without_numbers(use: str) -> None:
    waiting, left, found = run(COMPILED.format(use=use))
    assert waiting == len(UNUSED)
    assert left == []
    assert found == [2, 2]


def test_parts_that_wait_can_be_used() -> None:
    code = """
import json
from moreie.cli.quick_torch import import_torch
import_torch()
import torch
made = torch.nn.Linear(2, 2, bias=False)
torch.nn.init.ones_(made.weight)
optimiser = torch.optim.SGD(made.parameters(), lr=0.5)
made(torch.ones(1, 2)).sum().backward()
optimiser.step()
batches = torch.utils.data.DataLoader(list(range(4)), batch_size=2)
exported = torch.export.export(torch.nn.ReLU(), (torch.ones(2),)).module()(torch.tensor([-1.0, 1.0]))
normal = torch.distributions.Normal(0.0, 1.0).mean
nested = torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]).size(0)
print(json.dumps([made.weight.tolist(), [b.tolist() for b in batches], exported.tolist(), float(normal), nested]))
"""
    assert run(code) == [[[0.5, 0.5], [0.5, 0.5]], [[0, 1], [2, 3]], [0.0, 1.0], 0.0, 2]


def test_versions_that_have_not_been_tried_are_imported_as_they_are() -> None:
    code = """
import json, sys
import moreie.cli.quick_torch as quick_torch
quick_torch.TRIED = "1.0."
quick_torch.import_torch()
print(json.dumps(["torch" in sys.modules, sys.meta_path[0].__class__.__name__]))
"""
    imported, first = run(code)
    assert not imported
    assert first != "_Finder"
