"""The reference that scripts/reference builds: every method of the client is in it, and says what it should."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import kvclient
import kvclient.aio
from kvclient.commands import Commands
from kvclient.commands.base import _commands_of

ROOT = Path(__file__).parents[2]


def test_every_method_is_in_it(tmp_path: Path) -> None:
    script = (ROOT / "scripts" / "reference").read_text("utf-8")
    modules = re.findall(r"kvclient[.\w]*(?=[ \n])", script.rpartition("build/reference")[2])
    command = [sys.executable, "-W", "ignore", "-m", "pdoc", "--docformat", "google", "-o", str(tmp_path), *modules]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=100)
    page = (tmp_path / "kvclient.html").read_text("utf-8")
    other = (tmp_path / "kvclient" / "aio.html").read_text("utf-8")
    for name, _ in _commands_of(Commands):
        assert f"Client.{name}" in page
        assert f"AsyncClient.{name}" in other


def test_every_command_says_what_it_returns_and_which_it_is_on_the_server() -> None:
    for name, command in _commands_of(Commands):
        for cls in (kvclient.Client, kvclient.aio.AsyncClient, kvclient.Pipeline):
            method = getattr(cls, name)
            assert inspect.signature(method).return_annotation not in {"Args", inspect.Signature.empty}, name
            assert "Server command" in (method.__doc__ or ""), name
            assert command.name.split("|")[0] in method.__doc__, name
