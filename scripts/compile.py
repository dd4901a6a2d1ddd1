"""Compile what is called for every command: when a wheel is built, by hatchling (pyproject.toml), or by hand.

Two things can be compiled. The inner steps of the protocol are written in C, beside the same in Python, and are
compiled wherever there is a compiler. The modules below are Python, and mypyc compiles them as they are, in a minute or
so; only with KVSERVER_COMPILE=1 in the environment, and not for an editable install, where sources are edited.
With KVSERVER_PURE=1, or without a compiler, the package is pure Python: slower, and otherwise the same.

By hand, into a folder for PYTHONPATH: python scripts/compile.py FOLDER
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension

INNER_STEPS = "kvserver/protocol/speedups.c"
MODULES = (
    "kvserver/buffers.py",
    "kvserver/commands/arguments.py",
    "kvserver/commands/conditional.py",
    "kvserver/commands/expiry.py",
    "kvserver/commands/keys.py",
    "kvserver/commands/registry.py",
    "kvserver/commands/strings.py",
    "kvserver/connection.py",
    "kvserver/dispatch.py",
    "kvserver/journal/effects.py",
    "kvserver/observe/usage.py",
    "kvserver/protocol/decoder.py",
    "kvserver/runs.py",
    "kvserver/session.py",
    "kvserver/sockets.py",
    "kvserver/state.py",
    "kvserver/store/glance.py",
    "kvserver/store/leases.py",
    "kvserver/store/lock.py",
    "kvserver/store/memory.py",
)
"""What a command goes through. Compiled code keeps the interpreter's lock until it calls something that lets go of it,
so nothing is in here that works for long (SCAN, KEYS, FLUSHALL, expiry, rewriting), but for commands that name many
keys, and take them ``in_turns`` (store/turns.py)."""
MYPYC = "mypy[mypyc]>=2.4,<2.5"


class CompileHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds compiled modules to a wheel, and takes them away again afterwards."""

    def dependencies(self) -> list[str]:
        return [MYPYC] if _wants_modules() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if os.environ.get("KVSERVER_PURE") == "1":
            return
        self._folder = tempfile.TemporaryDirectory()  # also goes when this raises
        is_editable = version == "editable"
        with_modules = _wants_modules() and not is_editable
        try:
            built = compile_in(Path(self._folder.name), Path(self.root), with_modules=with_modules)
        except (Exception, SystemExit) as error:
            if with_modules:
                raise SystemExit(f"KVSERVER_COMPILE=1, but nothing can be compiled: {error}") from error
            self.app.display_warning(f"nothing was compiled; kvserver will be slower: {error}")
            return
        for name, path in built.items():
            if is_editable:  # imported from the sources, so it has to stand beside them
                target = Path(self.root, name)
                target.unlink(missing_ok=True)  # not overwritten: a server that runs has it mapped
                shutil.copy(path, target)
            else:
                build_data["force_include"][str(path)] = name
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        if hasattr(self, "_folder"):
            self._folder.cleanup()


def _wants_modules() -> bool:
    """mypyc's classes are not yet safe without a global interpreter lock."""
    return os.environ.get("KVSERVER_COMPILE") == "1" and not sysconfig.get_config_var("Py_GIL_DISABLED")


def compile_in(folder: Path, root: Path, *flags: str, with_modules: bool = False) -> dict[str, Path]:
    """Compile into a folder; where the results belong, and where they are. What fails raises."""
    with contextlib.chdir(root):
        name = INNER_STEPS.removesuffix(".c").replace("/", ".")
        extensions = [Extension(name, [INNER_STEPS], extra_compile_args=[*flags], extra_link_args=[*flags])]
        if with_modules:
            extensions += _extensions_of_modules(folder)
        command = Distribution({"ext_modules": extensions}).get_command_obj("build_ext")
        command.build_lib = str(folder / "lib")  # type: ignore[attr-defined]
        command.build_temp = str(folder / "temp")  # type: ignore[attr-defined]
        command.ensure_finalized()
        command.run()
    built = [Path(path) for path in command.get_outputs()]  # type: ignore[attr-defined]
    return {path.relative_to(folder / "lib").as_posix(): path for path in built}


TYPES = ("--config-file=", "--no-site-packages", "--ignore-missing-imports")
"""How mypy looks at the modules first. Other packages need not be installed, and must not matter where they are: what
can be compiled is the same anywhere."""


def _extensions_of_modules(folder: Path) -> list[Extension]:
    from mypyc.build import mypycify

    options = [*TYPES, f"--cache-dir={folder / 'cache'}", *MODULES]
    return mypycify(options, target_dir=str(folder / "c"), group_name="kvserver")


def copy_to(target: Path, root: Path) -> None:
    """Make a folder that holds the packages, compiled."""
    with tempfile.TemporaryDirectory() as folder:
        for package in ("kvserver", "kvclient"):
            shutil.copytree(root / package, target / package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        for name, path in compile_in(Path(folder), root, with_modules=True).items():
            shutil.copy(path, target / name)


if __name__ == "__main__":
    copy_to(Path(sys.argv[1]), Path(__file__).parents[1])
