"""Killed at any moment: a short run of scripts/crash.py, and a kill or an error at each system call that matters."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import redis
from journal.conftest import contents
from support import need

import kvserver

ROOT = Path(__file__).parents[2]

# A server that replies without minding the journal; the driver has to find it out.
_CARELESS = """
import sys
from kvserver.connection import Connection
Connection._hold_back = lambda *_: False
from kvserver.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def crash() -> ModuleType:
    spec = importlib.util.spec_from_file_location("crash", ROOT / "scripts" / "crash.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["crash"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("mode", ["always", "everysec", "no"])
def test_killed_while_it_is_written_to(crash: ModuleType, mode: str) -> None:
    assert crash.run(4, 1, (mode,)) > 0


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_three_hundred_times(crash: ModuleType) -> None:
    assert crash.run(100, 2) > 0


@pytest.mark.parametrize("mode", ["always", "everysec"])
def test_a_server_that_replies_too_early_is_found_out(
    crash: ModuleType, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crash, "PROGRAM", [sys.executable, "-c", _CARELESS])
    monkeypatch.setenv("KVSERVER_PURE", "1")  # what it breaks must not be compiled
    with pytest.raises(AssertionError, match="came back of"):
        crash.run(10, 1, (mode,))


# A kill at the n-th call of each kind

_WORK = """
import sys, os, signal
import kvserver, redis
data, base = sys.argv[1], int(sys.argv[2])
with kvserver.Server(port=0, data_dir=data) as server, redis.Redis(port=server.port, retry=None) as client:
    for turn in range(3):
        for number in range(3):
            client.mset({"a": base + turn * 3 + number, "b": base + turn * 3 + number})
            print(base + turn * 3 + number, flush=True)
        client.save()
"""


def work(data: Path, base: int, *inject: str) -> tuple[list[int], int]:
    """The numbers acknowledged, and the exit status, of a program that writes and rewrites, killed by strace."""
    strace = need("strace")
    command = [strace, "-f", "-qq", "-o", "/dev/null", *inject, sys.executable, "-c", _WORK, str(data), str(base)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    return [int(line) for line in ran.stdout.split()], ran.returncode


@pytest.mark.parametrize("call", ["fdatasync", "fsync", "rename", "unlink", "write"])
def test_killed_at_each_system_call_that_matters(data: Path, call: str) -> None:
    """At the first, second, third ... call of that kind, until the program gets through; on one directory."""
    base, killed = 0, 0
    for when in (1, 2, 4, 7, 13):
        base += 100
        names = {"rename": "rename,renameat,renameat2", "unlink": "unlink,unlinkat"}.get(call, call)
        inject = ["-e", f"trace={names}", "-e", f"inject={names}:signal=KILL:when={when}"]
        acknowledged, status = work(data, base, *inject)
        killed += status != 0
        with kvserver.Server(port=0, data_dir=str(data)) as server:
            found = contents(server).get(0, {})
            a, b = (int(found.get(key, (b"0", None))[0]) for key in (b"a", b"b"))
            assert a == b
            if acknowledged:
                assert acknowledged[-1] <= a <= acknowledged[-1] + 1
    assert killed


@pytest.mark.parametrize("when", [1, 2, 3, 4, 6])
def test_an_error_at_the_nth_sync(data: Path, when: int) -> None:
    """The journal's sync, or a file's during a rewrite: what was acknowledged is there after a new start."""
    inject = ["-e", "trace=fdatasync,fsync", "-e", f"inject=fdatasync,fsync:error=EIO:when={when}"]
    acknowledged, _ = work(data, 0, *inject)
    if not (data / "appendonlydir" / "appendonly.aof.manifest").exists():
        assert not acknowledged
        return
    with kvserver.Server(port=0, data_dir=str(data)) as server:
        found = contents(server).get(0, {})
        if acknowledged:
            assert int(found[b"a"][0]) >= acknowledged[-1]


_LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from kvserver.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("mode", ["always", "no"])
def test_a_file_that_may_not_grow(data: Path, mode: str) -> None:
    """The system writes as much as fits and then refuses: real short writes, and no half batch behind."""
    process = subprocess.Popen(
        [sys.executable, "-c", _LIMITED, "--port", "0", "--data-dir", str(data), "--fsync", mode],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    acknowledged = 0
    try:
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        with redis.Redis(port=port, retry=None) as client, pytest.raises(redis.RedisError):  # noqa: PT012 - until it fails
            while True:
                client.set(f"k{acknowledged}", "v" * 700)
                acknowledged += 1
        assert acknowledged
        if mode == "no":
            with redis.Redis(port=port) as client:
                assert client.get("k0") == b"v" * 700
                with pytest.raises(redis.ResponseError, match="MISCONF"):
                    client.set("more", 1)
    finally:
        process.send_signal(signal.SIGTERM)
        process.stdout.close()
        assert process.wait(20) == 1  # not everything is on disk
    with kvserver.Server(port=0, data_dir=str(data)) as server:
        assert len(contents(server)[0]) == acknowledged
