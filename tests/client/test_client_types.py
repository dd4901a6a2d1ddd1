"""What a type checker sees: exact types, and mistakes found before anything runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import kvclient
import kvclient.aio
import dataclasses

@dataclasses.dataclass
class User:
    name: str = ""

kv = kvclient.connect()
p = kv.pipeline()
reveal_type(kv.get("k"))  # bytes | None
reveal_type(kv.set("k", 1, ttl=30, if_absent=True))  # bool
reveal_type(kv.set_get("k", b"v"))  # bytes | None
reveal_type(kv.mget("a", "b"))  # list[bytes | None]
reveal_type(kv.mset({"a": 1}))  # None
reveal_type(kv.incrbyfloat("k", 1.5))  # float
reveal_type(kv.scan().keys)  # list[bytes]
reveal_type(kv.time())  # tuple[int, int]
reveal_type(kv.config_get("*"))  # dict[str, str]
reveal_type(kv["k"])  # bytes
reveal_type(list(kv))  # list[bytes]
reveal_type(p.get("k").result())  # bytes | None
reveal_type(p.exists("k"))  # kvclient.commands.base.Future[int]
j = kv.typed(kvclient.serializers.model(User))
reveal_type(j.get("k"))  # program.User | None
reveal_type(j.mget("k"))  # list[program.User | None]
reveal_type(j["k"])  # program.User
reveal_type(j.pipeline().getdel("k").result())  # program.User | None
reveal_type(j.ns("a:").set_get("k", User()))  # program.User | None
reveal_type(j.get_or_set("k", User, ttl=5))  # program.User
reveal_type(kvclient.connect(serializer=kvclient.serializers.TEXT).get("k"))  # str | None
def any_client(client: kvclient.Client, users: kvclient.Client[User, User], batch: kvclient.Pipeline) -> None: ...
any_client(kv, j, p)
j.set("k", "text")  # error
j.mset({"k": 1})  # error
any_client(j, j, p)  # error
async def main() -> None:
    texts = kvclient.aio.connect(serializer=kvclient.serializers.TEXT)
    reveal_type(await texts.get("k"))  # str | None
    akv = await kvclient.aio.connect()
    reveal_type(await akv.get("k"))  # bytes | None
    reveal_type(await akv.mget("a", "b"))  # list[bytes | None]
    reveal_type([key async for key in akv.scan_iter()])  # list[bytes]
    async with akv.pipeline() as ap:
        reveal_type(ap.get("k").result())  # bytes | None
    async def work(t: kvclient.aio.AsyncWatchingTransaction) -> int:
        reveal_type(await t.now.incr("k"))  # int
        return 1
    reveal_type(await akv.transaction(work, watch=["k"]))  # int
    async with akv.listen("c") as messages:
        reveal_type([m async for m in messages])  # list[kvclient.listening.Message]
    await akv.get(1)  # error
    (await akv.get("k")).decode()  # error
    akv.get("k").decode()  # error
kv.get(1)  # error
kv.set("k", None)  # error
kv.set("k", 1, tll=3)  # error
kv.mset({1: 2})  # error
kv.pipeline().get()  # error
kv.get("k").decode()  # error
"""


def test_types_are_exact_and_mistakes_are_found(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    cache = tmp_path / "cache"
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", f"--cache-dir={cache}", str(program)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=110)
    found: dict[int, str] = {}
    for number, kind, text in re.findall(r"program\.py:(\d+): (\w+): (.*)", done.stdout):
        if kind == "error":
            found[int(number)] = "error"
        elif revealed := re.search(r'Revealed type is "(.*)"', text):
            found[int(number)] = revealed[1].replace("builtins.", "")
    lines = enumerate(PROGRAM.splitlines(), 1)
    expected = {number: line.split("  # ")[1] for number, line in lines if "  # " in line}
    assert found == expected, done.stdout + done.stderr


def test_pyright_agrees(tmp_path: Path) -> None:
    """On the library, and on each type that the program above reveals. By basedpyright, set to pyright's rules."""
    checker = shutil.which("basedpyright", path=str(Path(sys.executable).parent))
    if checker is None:
        assert os.environ.get("CI") != "true", "scripts/setup --ecosystem should have installed it"
        pytest.skip("basedpyright is not installed; scripts/setup --ecosystem does that")
    root = Path(__file__).parents[2]
    (tmp_path / "program.py").write_text(PROGRAM)
    settings = {
        "include": [str(tmp_path / "program.py"), str(root / "kvclient")],
        "extraPaths": [str(root)],
        "typeCheckingMode": "standard",
        "pythonVersion": "3.11",
        "reportMissingModuleSource": "none",
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [checker, "-p", str(tmp_path), "--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    found: dict[int, str] = {}
    elsewhere = []
    for each in json.loads(done.stdout)["generalDiagnostics"]:
        line = each["range"]["start"]["line"] + 1
        if not each["file"].endswith("program.py"):
            elsewhere.append(f"{each['file']}:{line} {each['message']}")
        elif each["severity"] == "error":
            found[line] = "error"
        elif revealed := re.search(r'^Type of ".*" is "(.*)"$', each["message"], re.DOTALL):
            found[line] = revealed[1]
    assert elsewhere == []
    lines = enumerate(PROGRAM.splitlines(), 1)
    expected = {number: line.split("  # ")[1] for number, line in lines if "  # " in line}
    shortened = {number: re.sub(r"\b(?:\w+\.)+(?=[A-Z])", "", text) for number, text in expected.items()}
    assert found == shortened
