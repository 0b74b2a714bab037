"""8-bit graphs that have been made before, on disk: an encoder with an adapter is brought into 8 bits once.

They lie in the user's cache (`MOREIE_CACHE`, else where the system keeps caches) and may be deleted at any time. A name
says all that a graph depends on: weights, adapter, and the versions of what makes and quantises it. A file is the
SHA-256 of the graph, then the graph.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from importlib.metadata import version
from pathlib import Path

from moreie.encoders.text import TextEncoder
from moreie.whole_files import replace_file

log = logging.getLogger(__name__)
# Raise it where the same weights are to become another graph.
FORMAT = 1
DIGEST_SIZE = hashlib.sha256().digest_size
MAKERS = ("torch", "onnx", "onnxscript", "onnxruntime")


def graphs_folder() -> Path:
    """Where graphs are kept."""
    from platformdirs import user_cache_path

    own = os.environ.get("MOREIE_CACHE")
    return (Path(own) if own else user_cache_path("moreie", appauthor=False)) / "int8"


def graph_name(encoder: TextEncoder, adapter: str | None) -> str:
    """File name of the graph of an encoder, bare or with an adapter."""
    digest = hashlib.sha256()
    made_by = {name: version(name) for name in MAKERS}
    digest.update(json.dumps([FORMAT, made_by, encoder.fingerprint, encoder.takes_positions]).encode())
    if adapter is not None:
        layer = next(iter(encoder.adapted_layers().values()))
        rank = len(layer.weights(adapter)[0])
        digest.update(json.dumps([rank, round(layer.scaling[adapter] * rank)]).encode())
        for name, tensor in sorted(encoder.adapter_state(adapter).items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return f"{digest.hexdigest()[:16]}.graph"


def kept_graph(name: str) -> bytes | None:
    """A graph by its name; None where there is none, or a damaged one."""
    path = graphs_folder() / name
    try:
        content = path.read_bytes()
    except OSError:
        return None
    graph = content[DIGEST_SIZE:]
    if hashlib.sha256(graph).digest() == content[:DIGEST_SIZE]:
        return graph
    log.warning("%s: a damaged 8-bit graph, made anew", path)
    return None


def keep_graph(name: str, graph: bytes) -> None:
    """Keep a graph for the next time; where that cannot be done, it is said and will be made again."""
    folder = graphs_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / name, hashlib.sha256(graph).digest() + graph)
    except OSError as problem:
        log.warning("8-bit graphs are not kept, the next start makes them again: %s", problem)
