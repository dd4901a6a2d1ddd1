"""Everything here runs twice: with the inner steps in Python, and with the compiled ones.

With those in Python a word is also long, and so put together apart from the buffer, from 8 bytes on.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kvserver.protocol import decoder, encoder, inner, pure

STEPS = ("split_commands", "bulk", "simple", "integer")


@pytest.fixture(scope="module", autouse=True, params=["pure", "compiled"])
def steps(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param == "compiled":
        module = pytest.importorskip("kvserver.protocol.speedups", reason="it was not compiled", exc_type=ImportError)
    else:
        module = pure
    chosen = {getattr(inner, name): getattr(module, name) for name in STEPS}
    with pytest.MonkeyPatch.context() as patch:
        for table in (encoder.encoding(2), encoder.encoding(3)):
            assert isinstance(table, dict)
            for kind, encode in list(table.items()):
                patch.setitem(table, kind, chosen.get(encode, encode))
        for place in (encoder, inner):
            for name in STEPS:
                if hasattr(place, name):
                    patch.setattr(place, name, getattr(module, name))
        if module is pure:
            patch.setattr(decoder, "_LONG", 8)
        yield
