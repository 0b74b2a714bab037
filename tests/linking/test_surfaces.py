"""The names a mention is looked up by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moreie.knowledge.names import normal_name
from moreie.linking.surfaces import surface_names


@pytest.mark.parametrize(
    ("surface", "names"),
    [
        ("Kawhi Leonard", ("kawhi leonard",)),
        ("# KawhiLeonard", ("kawhileonard", "kawhi leonard")),
        ("@taylor_swift", ("taylor swift",)),
        ("Obama's", ("obama s", "obama")),
        ("Spurs’", ("spurs",)),
        ("The Beatles", ("the beatles", "beatles")),
        ("Beyoncé", ("beyonce",)),
        ("…", ()),
        ("", ()),
    ],
)
def test_names(surface: str, names: tuple[str, ...]) -> None:
    assert surface_names(surface) == names


@given(st.text(max_size=40))
def test_names_are_normal_and_distinct(surface: str) -> None:
    names = surface_names(surface)
    assert len(set(names)) == len(names)
    assert all(name and normal_name(name) == name for name in names)
