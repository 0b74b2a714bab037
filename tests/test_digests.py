"""Short names of files and folders."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moreie.digests import BLOCK, file_digest, folder_digest


def test_a_file_is_named_by_its_bytes(tmp_path: Path) -> None:
    content = b"x" * (BLOCK + 1)
    (tmp_path / "a").write_bytes(content)
    assert file_digest(tmp_path / "a") == hashlib.sha256(content).hexdigest()[:16]


FOLDERS = st.dictionaries(st.sampled_from(["a", "b", "ab", "c/a", "c/b"]), st.binary(max_size=4), min_size=1)


@given(FOLDERS, FOLDERS)
def test_folders_are_named_alike_where_they_hold_the_same(
    tmp_path_factory: pytest.TempPathFactory, one: dict[str, bytes], other: dict[str, bytes]
) -> None:
    folders = [tmp_path_factory.mktemp("folder") for _ in range(2)]
    for folder, files in zip(folders, (one, other), strict=True):
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
    assert (folder_digest(folders[0]) == folder_digest(folders[1])) == (one == other)
    (folders[0] / ".hidden").write_bytes(b"more")
    assert (folder_digest(folders[0]) == folder_digest(folders[1])) == (one == other)


def test_a_folder_that_is_not_there_has_no_name(tmp_path: Path) -> None:
    assert folder_digest(tmp_path / "none") is None
