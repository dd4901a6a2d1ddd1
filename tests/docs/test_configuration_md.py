"""docs/configuration.md: made from the table of settings, and true."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import kvserver
from kvserver import config

_ROOT = Path(__file__).parents[2]
_PAGE = (_ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


def test_it_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(_ROOT / "scripts" / "docs.py"), "--check"],
        cwd=_ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_it_has_every_setting_by_all_of_its_names() -> None:
    for option in config.OPTIONS:
        for name in (option.flag, option.variable, option.config_name):
            assert f"`{name}" in _PAGE


def test_its_example_file_can_be_used(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", _PAGE, re.DOTALL)
    file = tmp_path / "kvserver.toml"
    file.write_text(example)
    settings = config.load({}, {"KVSERVER_CONFIG": str(file)})
    assert settings.port == 7000
    assert settings.host == ("127.0.0.1", "::1")
    assert settings.max_bulk_length == 64 * 1024**2


def test_its_embedding_example_can_be_used() -> None:
    (example,) = re.findall(r"`(kvserver\.Server\(.*?\))`", _PAGE)
    with eval(example, {"kvserver": kvserver}) as server:
        assert server.port
