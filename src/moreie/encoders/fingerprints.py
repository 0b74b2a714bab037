"""The fingerprint of a packed encoder, kept beside its files: to hash these takes a fifth of the time that it takes to
unpack, round and hash the weights in them.

What is kept names the files that it was made of by a hash of their own; once one of them has changed it says nothing.
"""

from __future__ import annotations

import json
from pathlib import Path

from moreie.digests import folder_digest
from moreie.encoders import packing
from moreie.whole_files import replace_file

FILE = ".fingerprint.json"


def recorded_fingerprint(folder: Path) -> str | None:
    """What `record_fingerprint` wrote, if the folder is that of a packed encoder and its files are still the same."""
    if not (folder / packing.FILE).is_file():
        return None
    try:
        said = json.loads((folder / FILE).read_bytes())
        made_of, fingerprint = said["made_of"], said["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(fingerprint) if made_of == folder_digest(folder) else None


def record_fingerprint(folder: Path, fingerprint: str) -> None:
    """Keep the fingerprint of the encoder in a folder beside its files, all of which are there."""
    said = {"made_of": folder_digest(folder), "fingerprint": fingerprint}
    replace_file(folder / FILE, json.dumps(said).encode() + b"\n")
