"""Where a corpus lives; the only code that knows an engine."""

from pathlib import Path


def in_cluster(location: Path | str) -> bool:
    """Whether a location is in Milvus (`stores.cluster`), not a folder."""
    return str(location).startswith(("milvus:", "milvus+tls:"))
