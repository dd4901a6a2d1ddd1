"""The table of libraries: each is installed as pinned, has a test, and stands so in the README."""

from __future__ import annotations

import os

import pytest
from matrix import HERE, MATRIX, ROOT, Row, installed_version, table, version


@pytest.mark.parametrize("row", [row for row in MATRIX if row.package], ids=lambda row: row.name)
def test_it_is_installed_as_pinned(row: Row) -> None:
    if installed_version(row) != version(row) and os.environ.get("CI") != "true":
        pytest.skip(f"{row.package} {version(row)} is not installed; scripts/setup --ecosystem does that")
    assert installed_version(row) == version(row)


def test_every_row_has_a_test_and_every_test_a_row() -> None:
    here = {path.name for path in HERE.glob("test_*.py")} - {"test_matrix.py"}
    assert {row.test for row in MATRIX if "/" not in row.test} == here
    assert all((HERE / row.test).exists() for row in MATRIX)


def test_the_readme_has_the_table() -> None:
    assert table() in (ROOT / "README.md").read_text(encoding="utf-8")
