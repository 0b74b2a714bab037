"""Compiles the kernels, when the package is installed and a C++ compiler is there (GCC or Clang).

The libraries are named after sources and flags, so that one of older sources is never loaded. Nothing but the
standard library is imported: `hatch_build.py` runs this file before the package is there.

python -m moreie.kernels.build builds them where the package lies.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
from itertools import chain
from pathlib import Path

FOLDER = Path(__file__).parent
SOURCES = tuple(FOLDER / name for name in ("attention.cpp", "crf.cpp", "int8.cpp", "norm.cpp", "product.cpp"))
HEADERS = tuple(
    FOLDER / f"{name}.h"
    for name in (
        "attention_pairs",
        "attention_tiles",
        "crf_abreast",
        "crf_factors",
        "crf_viterbi",
        "int8_rows",
        "pairs",
        "singles",
        "tiles",
        "vectors",
    )
)
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-strict-aliasing", "-fPIC", "-shared", "-Wno-psabi")
VARIANTS = {
    "": (),
    "AVX2": ("-mavx2", "-mfma"),
    "AVX512": ("-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"),
}
"""The flags of each variant by what processors can do, as torch names it; any machine of an architecture can do ""."""


def library_names() -> dict[str, str]:
    """File names of the variants."""
    flags = " ".join(chain(FLAGS, *VARIANTS.values()))
    written = b"".join(path.read_bytes() for path in (*SOURCES, *HEADERS))
    digest = hashlib.sha256(written + flags.encode()).hexdigest()[:12]
    return {able: f"_kernels_{digest}{able and '_'}{able.lower()}.so" for able in VARIANTS}


def compiler() -> list[str] | None:
    """The command of $CXX, or a compiler under its usual names; None where there is none."""
    named = shlex.split(os.environ.get("CXX", ""))
    for command in [named] if named else [["c++"], ["g++"], ["clang++"]]:
        if shutil.which(command[0]):
            return command
    return None


def build(folder: Path) -> list[Path]:
    """Compile into `folder`; the libraries made, none where there is no compiler or it fails."""
    command = compiler()
    if command is None:
        return []
    intel = platform.machine().lower() in ("x86_64", "amd64")
    made = []
    for able, name in library_names().items():
        if able and not intel:
            continue
        flags = FLAGS + VARIANTS[able]
        # Another name first: a process may have the library open, and one cut off must not look whole.
        path, partial = folder / name, folder / f"{name}.{os.getpid()}"
        done = subprocess.run(
            [*command, *flags, *map(str, SOURCES), "-o", str(partial)], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            partial.replace(path)
            made.append(path)
        else:
            logging.getLogger(__name__).warning("%s\n%s", shlex.join([*command, *flags]), done.stderr)
            partial.unlink(missing_ok=True)
    return made


if __name__ == "__main__":
    print("\n".join(str(path) for path in build(FOLDER)) or "no kernels built: no C++ compiler, or it failed")
