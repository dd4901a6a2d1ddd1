"""Everything at once: a short run of scripts/soak.py, and whether it finds what it is there to find."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.untraced  # it measures, and coverage costs

SCRIPT = Path(__file__).parents[2] / "scripts" / "soak.py"

_BROKEN = """
import sys
{defect}
from kvserver.cli import main
sys.exit(main(sys.argv[1:]))
"""
_CONFUSED = """
from kvserver.commands.registry import DIRECT
object.__setattr__(DIRECT[b"ECHO"], "handler", lambda session, message: b"somebody else's")
"""
_DEFECTIVE = """
from kvserver.commands.registry import DIRECT
object.__setattr__(DIRECT[b"ECHO"], "handler", lambda session, message: message if len(message) % 7 else 1 / 0)
"""
_LEAKING = """
import socket
from kvserver.connection import Connection
run, kept = Connection.run, []
def run_and_keep(self):
    kept.append(socket.socket(fileno=socket.dup(self._sock.fileno())))
    run(self)
Connection.run = run_and_keep
"""


@pytest.fixture
def soak() -> ModuleType:
    spec = importlib.util.spec_from_file_location("soak", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["soak"] = module
    spec.loader.exec_module(module)
    return module


def test_for_a_moment(soak: ModuleType) -> None:
    told = soak.soak(8, 1, 3)
    assert "no reply wrong" in told
    assert "| rejected_connections |" in told


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_for_half_an_hour(soak: ModuleType) -> None:
    assert "no reply wrong" in soak.soak(1800, 2, 6)


@pytest.mark.parametrize(
    ("defect", "found"),
    [
        (_CONFUSED, "was answered|wrong"),
        (_DEFECTIVE, "ServerError|command.defect|was answered"),
        pytest.param(_LEAKING, "threads and descriptors are left", marks=pytest.mark.slow),  # its clients wait in vain
    ],
)
def test_a_broken_server_is_found_out(
    soak: ModuleType, defect: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "PROGRAM", [sys.executable, "-c", _BROKEN.format(defect=defect)])
    monkeypatch.setattr(soak, "PATIENCE", 1)
    with pytest.raises(soak.SoakError, match=found):
        soak.soak(3, 1, 2)
