"""What the machine can do at most: measured rates, and the work that an encoder's forward pass is."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rows import seconds

from moreie.encoders.precision import bf16_is_fast

AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
AVX512 = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "MKL_ENABLE_INSTRUCTIONS": "AVX512"}
"""What torch and its libraries are told at their start, to keep to the instructions of such a processor."""
TOLD = "MOREIE_BENCHMARK_AS"


def keep_to(name: str, told: Mapping[str, str]) -> None:
    """Go on in a process whose libraries have been told so at their start, and which knows it by `name`."""
    if os.environ.get(TOLD) != name:
        sys.exit(subprocess.run([sys.executable, *sys.argv], env={**os.environ, **told, TOLD: name}).returncode)


def arguments_of(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What was given, `--as avx2` among it: torch, its libraries and our kernels are kept to such a processor then."""
    parser.add_argument("--as", dest="lesser", choices=["avx2"], help="keep to the instructions of such a processor")
    arguments = parser.parse_args()
    if arguments.lesser:
        keep_to(arguments.lesser, AVX2 | {"MOREIE_PRECISION": "float32"})
    return arguments


def _best(taken: Sequence[float]) -> float:
    """The shortest of many times but for the shortest twentieth, where a clock may have jumped."""
    return sorted(taken)[len(taken) // 20]


def matmul_rate(rows: int = 1024, inner: int = 384, outer: int = 1536, kind: torch.dtype = torch.float32) -> float:
    """Operations a second of products of the shapes an encoder has, with torch's threads."""
    a, b = torch.randn(rows, inner).to(kind), torch.randn(inner, outer).to(kind)
    out = torch.empty(rows, outer, dtype=kind)
    return 2 * rows * inner * outer / _best(seconds(lambda: torch.mm(a, b, out=out), 100))


def bandwidth() -> float:
    """Bytes a second, read and written, of a copy that no cache holds."""
    source = torch.zeros(16_000_000)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best(seconds(lambda: target.copy_(source), 25))


def encoder_operations(config: Any, lengths: Sequence[int]) -> float:
    """Multiplications and additions of a BERT's products over inputs of so many sub-tokens, padding left out."""
    h, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    dense = 2 * (4 * h * h + 2 * h * inner)
    return float(layers * sum(n * dense + 4 * n * n * h for n in lengths))


def encoder_floor(config: Any, lengths: Sequence[int], rate: float, moved: float) -> float:
    """Seconds: the products at `rate`, or the weights read once at `moved` bytes a second where that is more."""
    layer = 4 * config.hidden_size**2 + 2 * config.hidden_size * config.intermediate_size
    return max(encoder_operations(config, lengths) / rate, 4 * config.num_hidden_layers * layer / moved)


def with_vectors(name: str) -> str:
    """The name of a benchmark's file whose floor is set by torch's own operations, which are as wide as the machine's
    vectors."""
    return f"{name}_avx512" if torch.backends.cpu.get_cpu_capability() == "AVX512" else name


def with_arithmetic(name: str) -> str:
    """The name of a result file: rows of processors that extraction computes with in bfloat16 go into one of their
    own, and those of processors that multiply it by vectors, not by tiles, into another one."""
    if not bf16_is_fast("cpu"):
        return name
    return f"{name}_bfloat16" if torch.cpu._is_amx_tile_supported() else f"{name}_avx512_bf16"


def threads() -> str:
    """How many of them torch computes with, and on which lesser processor as it were."""
    count, lesser = torch.get_num_threads(), os.environ.get(TOLD)
    return f"{count} thread" + ("s" if count > 1 else "") + (f", as with {lesser}" if lesser else "")
