"""What nobody thought of: short runs of scripts/fuzz.py, and whether it finds what it is there to find."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.untraced  # it measures, and coverage costs

SCRIPTS = Path(__file__).parents[2] / "scripts"

_BROKEN = """
import sys
{defect}
from kvserver.cli import main
sys.exit(main(sys.argv[1:]))
"""
_DEFECTIVE = """
from kvserver.commands.registry import DIRECT
object.__setattr__(DIRECT[b"APPEND"], "handler", lambda database, key, value: 1 / 0)
"""
_DEAF = """
from kvserver.protocol import decoder
decoder.Decoder._bulk = lambda self: False
"""
_OTHER = """
from kvserver.protocol import decoder
decoder.Decoder._check_line_end = lambda self, line: None
"""
_DYING = """
import os
from kvserver.protocol import decoder
decoder.UnbalancedQuotesError.__init__ = lambda self, *args: os._exit(3)
"""


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import fuzz

    yield fuzz
    for name in ("fuzz", "mutations"):
        sys.modules.pop(name, None)


def test_alone(fuzz: ModuleType) -> None:
    assert "all held" in fuzz.fuzz(60, seed=7, rounds=60)


def test_beside_valkey(fuzz: ModuleType, valkey_port: int) -> None:
    assert "all held" in fuzz.fuzz(60, seed=7, rounds=60, valkey=valkey_port)


@pytest.mark.slow
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("beside_valkey", [False, True])
def test_for_long(fuzz: ModuleType, valkey_port: int, beside_valkey: bool) -> None:
    assert "all held" in fuzz.fuzz(400, seed=8, valkey=valkey_port if beside_valkey else None)


@pytest.mark.parametrize(
    ("defect", "beside_valkey", "found"),
    [
        (_DEFECTIVE, False, r"command.defect"),
        (_DEAF, True, r"kvserver answers .*Valkey"),
        (_OTHER, True, r"kvserver answers .*Valkey"),
        (_DYING, False, r"the server ended with 3|somebody else was not answered"),
    ],
    ids=["defective", "deaf", "other", "dying"],
)
def test_a_broken_server_is_found_out(
    fuzz: ModuleType,
    valkey_port: int,
    defect: str,
    beside_valkey: bool,
    found: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fuzz, "PROGRAM", [sys.executable, "-c", _BROKEN.format(defect=defect)])
    monkeypatch.setenv("KVSERVER_PURE", "1")  # what it breaks must not be compiled
    monkeypatch.setattr(fuzz, "WAIT", 0.5)
    with pytest.raises(fuzz.FoundError, match=found):
        fuzz.fuzz(60, seed=9, rounds=100, valkey=valkey_port if beside_valkey else None)
