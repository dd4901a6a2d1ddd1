"""Which inner steps are used: the compiled ones if they were built, those in Python otherwise.

``KVSERVER_PURE=1`` in the environment chooses Python. Both do the same, and only their speed differs.
"""

from __future__ import annotations

import os

try:
    if os.environ.get("KVSERVER_PURE") == "1":
        raise ImportError
    from kvserver.protocol.speedups import bulk, integer, simple, split_commands

    COMPILED = True
    """Whether these are the compiled ones."""
except ImportError:  # also when there was no compiler
    from kvserver.protocol.pure import bulk, integer, simple, split_commands

    COMPILED = False

__all__ = ["COMPILED", "bulk", "integer", "simple", "split_commands"]
