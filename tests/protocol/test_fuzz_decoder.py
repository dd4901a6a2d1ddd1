"""What must hold of any bytes (scripts/fuzz_decoder.py), tried on damaged conversations."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ModuleType, ModuleType]]:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import fuzz_decoder
    import mutations

    yield fuzz_decoder, mutations
    for name in ("fuzz_decoder", "mutations"):
        sys.modules.pop(name)


def check_many(scripts: tuple[ModuleType, ModuleType], seed: int, count: int) -> None:
    fuzz_decoder, mutations = scripts
    source = random.Random(seed)
    for _ in range(count):
        fuzz_decoder.check(mutations.stream(source, alone=True)[:3000])


def test_damaged_conversations(scripts: tuple[ModuleType, ModuleType]) -> None:
    check_many(scripts, 11, 400)


def _forgets_the_rest(decoder: Any) -> bytes:
    decoder._buffer.clear()
    decoder._position = decoder._scanned = 0
    return b""


def _forgets_where_it_stopped(decoder: Any) -> None:
    decoder._buffer.clear()
    decoder._position = decoder._scanned = 0


@pytest.mark.interpreted
@pytest.mark.parametrize(
    ("method", "broken"), [("_take_rest", _forgets_the_rest), ("_compact", _forgets_where_it_stopped)]
)
def test_a_broken_decoder_is_found_out(
    scripts: tuple[ModuleType, ModuleType], method: str, broken: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripts[0].Decoder, method, broken)
    with pytest.raises(AssertionError):
        check_many(scripts, 12, 200)
