"""Values that know how they came about, which OBJECT ENCODING tells. For everything else they are their bytes."""

from __future__ import annotations


class Edited(bytes):
    """A value that a command changed in place (APPEND, SETRANGE): the same bytes, but reported as ``raw``."""

    __slots__ = ()


class Formatted(bytes):
    """A number that a command wrote as text (INCRBYFLOAT): the same bytes, but not reported as ``int``."""

    __slots__ = ()
