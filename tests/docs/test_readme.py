"""The examples of the README and of the pages on kvclient, run as they stand (but for the port)."""

from __future__ import annotations

import ast
import re
import socket
from pathlib import Path

import pytest

import kvserver
from kvserver import extensions

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
PAGES = ("README.md", "docs/kvclient.md", "docs/from-redis-py.md", "docs/testing.md")
PYTHON = [
    text
    for page in PAGES
    for text in re.findall(r"```python\n(.*?)```", (Path(__file__).parents[2] / page).read_text("utf-8"), re.DOTALL)
]


def checked(block: str) -> str:
    """The block, with each ``expression   # value`` turned into an assertion."""
    lines = []
    for line in block.splitlines():
        code, _, comment = line.partition("  # ")
        try:
            ast.literal_eval(comment.strip())
            ast.parse(code.strip(), mode="eval")
        except (SyntaxError, ValueError):
            lines.append(line)
        else:
            indent = line[: len(line) - len(line.lstrip())]
            lines.append(f"{indent}assert ({code.strip()}) == {comment.strip()}")
    return "\n".join(lines)


@pytest.mark.parametrize("block", PYTHON, ids=[f"block{n}" for n in range(len(PYTHON))])
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the redis-py example closes nothing, as people write it
def test_python_examples(block: str, server: kvserver.Server) -> None:
    source = checked(block).replace("127.0.0.1:6379", f"127.0.0.1:{server.port}")
    try:
        exec(compile(source, "README.md", "exec"), {})
    finally:
        for name, _ in list(extensions.functions()):
            extensions.remove(name)


def test_the_comments_are_checked() -> None:
    assert any("assert (" in checked(block) for block in PYTHON)
    with pytest.raises(AssertionError):
        exec(checked("1 + 1   # 3"), {})


def test_telnet_session(server: kvserver.Server) -> None:
    session = next(text for _, text in BLOCKS if "$ telnet" in text)
    _, *lines = session.splitlines()
    typed = [line for line in lines if re.match(r"[A-Z]+( |$)", line)]
    answers = "".join(f"{line}\r\n" for line in lines if line not in typed)
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall("".join(f"{line}\r\n" for line in typed).encode())
        received = b"".join(iter(lambda: sock.recv(4096), b""))
    assert received.decode() == answers
