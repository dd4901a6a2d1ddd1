"""How this installation was built: what is called for every command may be compiled (scripts/compile.py), or not.

Compiled modules stand beside their sources, and Python takes those first. With ``KVSERVER_PURE=1`` in the environment
it takes the sources. Both do the same, and only their speed differs. ``KVSERVER_COMPILE=1`` is for building a wheel.

Not here: the protocol's inner steps, which are written twice (protocol/inner.py).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from importlib.util import find_spec
from types import ModuleType


class _Sources(MetaPathFinder):
    """Finds this package's modules in their sources only."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith("kvserver.") or path is None:
            return None
        finders = (FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES)) for folder in path)
        return next((spec for finder in finders if (spec := finder.find_spec(fullname, target)) is not None), None)


def choose() -> None:
    """Have the modules that are imported from now on be those that the environment asks for."""
    if os.environ.get("KVSERVER_PURE") == "1":
        sys.meta_path.insert(0, _Sources())


def is_compiled() -> bool:
    """Whether it is compiled modules that run."""
    spec = find_spec("kvserver.dispatch")
    return spec is not None and isinstance(spec.origin, str) and not spec.origin.endswith(".py")
