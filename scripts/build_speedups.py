"""Compile kvserver/protocol/speedups.c when a wheel is built, or an editable install is made, if there is a compiler.

Hatchling calls this (pyproject.toml). Without a compiler, or with KVSERVER_PURE=1, the package is pure Python: slower,
and otherwise the same.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension

SOURCE = "kvserver/protocol/speedups.c"


class SpeedupsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the compiled module to a wheel, and takes it away again afterwards."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if os.environ.get("KVSERVER_PURE") == "1":
            return
        self._folder = tempfile.mkdtemp()
        try:
            name, built = compile_in(Path(self._folder), Path(self.root))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - what setuptools raises differs between compilers
            self.app.display_warning(f"{SOURCE} was not compiled; kvserver will be slower: {error}")
            return
        if version == "editable":  # imported from the sources, so it has to stand beside them
            target = Path(self.root, name)
            target.unlink(missing_ok=True)  # not overwritten: a server that runs has it mapped
            shutil.copy(built, target)
        else:
            build_data["force_include"][str(built)] = name
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        if hasattr(self, "_folder"):
            shutil.rmtree(self._folder, ignore_errors=True)


def compile_in(folder: Path, root: Path, *flags: str) -> tuple[str, Path]:
    """Compile into a folder; where the module belongs, and where it is. What fails raises."""
    name = SOURCE.removesuffix(".c").replace("/", ".")
    extension = Extension(name, [SOURCE], extra_compile_args=[*flags], extra_link_args=[*flags])
    command = Distribution({"ext_modules": [extension]}).get_command_obj("build_ext")
    command.build_lib = command.build_temp = str(folder)  # type: ignore[attr-defined]
    command.ensure_finalized()
    with contextlib.chdir(root):
        command.run()
    built = Path(command.get_ext_filename(name))  # type: ignore[attr-defined]
    return built.as_posix(), folder / built


if __name__ == "__main__":  # python scripts/build_speedups.py FOLDER [FLAGS]: by hand, with a sanitizer for example
    compile_in(Path(sys.argv[1]), Path(__file__).parents[1], *sys.argv[2:])
