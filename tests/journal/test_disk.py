"""The machine stops: what was not synced may be gone. Deliberate omissions have to be found out by the same test."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from journal.conftest import contents
from journal.disk import Call, Disk, trace

import kvserver
from kvserver.config import ConfigError

_WORK = """
import sys
OMIT
import kvserver, redis
with kvserver.Server(port=0, data_dir=sys.argv[1]) as server, redis.Redis(port=server.port, retry=None) as client:
    for turn in range(4):
        for number in range(turn * 4 + 1, turn * 4 + 5):
            client.mset({"a": number, "b": number, "v": b"%d:" % number + b"v" * (number * 531)})
            sys.stdout.write(f"{number};")
            sys.stdout.flush()
        client.save()
"""
_OMISSIONS = {
    "nothing": "",
    "the journal's fdatasync": "import os; os.fdatasync = lambda descriptor: None",
    "the directory's fsync": """
import kvserver.journal.directory as directory, kvserver.journal.rewrite as rewrite
directory.sync = rewrite.sync = lambda path: None
""",
    "the fsync of a new base": """
import os, kvserver.journal.rewrite as rewrite
class Careless:
    fsync = staticmethod(lambda descriptor: None)
    __getattr__ = lambda self, name: getattr(os, name)
rewrite.os = Careless()
""",
}


@pytest.fixture(scope="module", params=_OMISSIONS)
def traced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Call]]:
    scratch = tmp_path_factory.mktemp("trace")
    calls, status = trace(_WORK.replace("OMIT", _OMISSIONS[request.param]), scratch / "data", scratch)
    assert status == 0
    assert sum(call.name == "print" for call in calls) == 16
    return request.param, calls


def faults(calls: list[Call], folder: Path, crashes: int) -> list[str]:
    """What was wrong after a number of crashes, each at a random call."""
    found = []
    for seed in range(crashes):
        draw = random.Random(seed)
        disk = Disk()
        for call in calls[: draw.randint(1, len(calls))]:
            disk.do(call)
        data = folder / str(seed)
        disk.crash(data, draw)
        acknowledged = int((disk.printed.rstrip(b";").split(b";")[-1]) or 0)
        try:
            with kvserver.Server(port=0, data_dir=str(data)) as server:
                keys = contents(server).get(0, {})
        except ConfigError as error:
            found.append(f"seed {seed}: {error}")
            continue
        a, b = (int(keys.get(name, (b"0", None))[0]) for name in (b"a", b"b"))
        if not acknowledged <= a <= acknowledged + 1 or a != b:
            found.append(f"seed {seed}: {acknowledged} acknowledged, {a} and {b} came back")
        elif a and keys[b"v"][0] != b"%d:" % a + b"v" * (a * 531):
            found.append(f"seed {seed}: a value of something else")
    return found


def test_a_machine_that_stops(traced: tuple[str, list[Call]], tmp_path: Path) -> None:
    omitted, calls = traced
    found = faults(calls, tmp_path, 1000 if omitted == "nothing" else 100)
    assert bool(found) == (omitted != "nothing"), found[:3]
