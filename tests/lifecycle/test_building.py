"""A wheel is built with a compiler and without one; what it lacks then is speed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

pytest.importorskip("hatchling")
pytest.importorskip("setuptools")
ROOT = Path(__file__).parents[2]


def build(folder: Path, **environment: str) -> tuple[str, set[str], str]:
    """The wheel's name, the files in it, and what was said."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return wheel.name, set(archive.namelist()), done.stdout + done.stderr


def compiled(files: set[str]) -> list[str]:
    return [name for name in files if name.startswith("kvserver/protocol/speedups.") and name.endswith((".so", ".pyd"))]


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no compiler")
def test_with_a_compiler(tmp_path: Path) -> None:
    name, files, _ = build(tmp_path)
    assert len(compiled(files)) == 1
    assert f"cp{sys.version_info[0]}{sys.version_info[1]}" in name
    assert "kvserver/protocol/pure.py" in files


@pytest.mark.parametrize(("variable", "value"), [("CC", "no-such-compiler"), ("KVSERVER_PURE", "1")])
def test_without(tmp_path: Path, variable: str, value: str) -> None:
    name, files, said = build(tmp_path, **{variable: value})
    assert compiled(files) == []
    assert name.endswith("-py3-none-any.whl")
    assert "kvserver/protocol/pure.py" in files
    assert ("nothing was compiled" in said) == (variable == "CC")


def test_nothing_has_to_be_installed_to_compile(tmp_path: Path) -> None:
    """What is compiled has types that hold where no other package is there, as where a wheel is built."""
    specification = spec_from_file_location("compile_script", ROOT / "scripts" / "compile.py")
    assert specification is not None
    assert specification.loader is not None
    script = module_from_spec(specification)
    specification.loader.exec_module(script)
    command = [sys.executable, "-m", "mypy", *script.TYPES, f"--cache-dir={tmp_path / 'cache'}", *script.MODULES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_asked_for_and_cannot_be_had(tmp_path: Path) -> None:
    """To compile the Python modules takes a minute (scripts/test-compiled does); here it fails at once."""
    (tmp_path / "mypyc").mkdir()
    (tmp_path / "mypyc" / "__init__.py").touch()
    (tmp_path / "mypyc" / "build.py").write_text("raise ImportError('no mypyc here')")
    environment = os.environ | {"KVSERVER_COMPILE": "1", "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "wheel")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "KVSERVER_COMPILE=1, but nothing can be compiled: no mypyc here"
    assert not list(tmp_path.glob("wheel/*.whl"))
