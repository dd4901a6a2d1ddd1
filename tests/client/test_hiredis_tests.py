"""hiredis-py's own tests of its reader and its packer, run on kvclient's decoder and encoder.

They are taken from its source archive, which scripts/setup --ecosystem downloads, and run as they are, with a small
module in place of hiredis (hiredis_shim). What cannot apply is named here, with the reason.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

SHIM = Path(__file__).parent / "hiredis_shim"
OF_NO_USE = {
    # Bytes that are not UTF-8 are shown as \xd1 in an error's text, and not lost as U+FFFD.
    "test_error_string_with_non_utf8_chars",
    "test_errors_with_non_utf8_chars_in_nested_multi_bulk",
    # A set is a set here, without an order, and hashable all through.
    "test_set",
    "test_set_with_nested_dict",
    "test_dict_memory_leaks",
    # A map as the key of a map becomes a tuple, where hiredis refuses it.
    "test_dict_with_unhashable_key",
    # The sizes of hiredis' own buffers.
    "test_maxbuf",
    "test_len",
}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of hiredis' tests."""
    found = sorted(Path(sys.prefix, "sdists").glob("hiredis-*.tar.gz"))
    if not found:
        if os.environ.get("CI") == "true":
            pytest.fail("hiredis' source archive is not there; scripts/setup --ecosystem should have downloaded it")
        pytest.skip("hiredis' source archive is not there; scripts/setup --ecosystem downloads it")
    folder = tmp_path_factory.mktemp("hiredis")
    with tarfile.open(found[-1]) as archive:
        for member in archive.getmembers():
            if re.fullmatch(r"[^/]+/tests/test_(reader|pack)\.py", member.name):
                member.name = Path(member.name).name
                archive.extract(member, folder, filter="data")
    return folder


@pytest.mark.parametrize(("name", "least"), [("test_reader.py", 49), ("test_pack.py", 6)])
def test_they_pass(theirs: Path, name: str, least: int) -> None:
    (theirs / "conftest.py").write_text(
        "def pytest_collection_modifyitems(config, items):\n"
        f"    out = [item for item in items if item.name in {sorted(OF_NO_USE)!r}]\n"
        "    config.hook.pytest_deselected(items=out)\n"
        "    items[:] = [item for item in items if item not in out]\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:kvserver", "-W", "ignore"]
    done = subprocess.run(
        [*command, f"--rootdir={theirs}", "-c", "/dev/null", name],
        cwd=theirs,
        env={**os.environ, "PYTHONPATH": f"{SHIM}{os.pathsep}{Path(__file__).parents[2]}"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= least
    if name == "test_reader.py":
        assert f"{len(OF_NO_USE)} deselected" in done.stdout  # each of them is there
