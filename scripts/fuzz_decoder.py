#!/usr/bin/env python3
"""Look for bytes that the server's decoder does not handle, led by its coverage (atheris, from PyPI).

    pip install atheris; python scripts/fuzz_decoder.py [-max_total_time=600] [-seed=1] [CORPUS_FOLDER]

The options are libFuzzer's. What must hold of any bytes is in :func:`check`, which tests/protocol runs too.
"""

from __future__ import annotations

import random
import sys

from kvserver.protocol.decoder import Decoder, Limits, ProtocolError

LIMITS = Limits(line=200, arguments=50, bulk=1000, command=2000)
"""Low, so that short inputs reach them."""
STRANGER = Limits(line=200, arguments=10, bulk=100, command=2000, stranger=True)


def decode(parts: list[bytes], limits: Limits) -> tuple[list[list[bytes]], str | None]:
    """The commands in bytes that come so cut, and the error that ends them."""
    decoder, commands, sent = Decoder(limits), [], 0
    for part in parts:
        sent += len(part)
        try:
            for command in decoder.feed(part):
                assert command, "a command has a name"
                commands.append(command)
        except ProtocolError as error:
            assert_is_dead(decoder, str(error))
            return commands, str(error)
        assert decoder.held <= sent, "nothing is held that has not come"
        assert decoder.pending or not decoder.held
    return commands, None


def assert_is_dead(decoder: Decoder, said: str) -> None:
    """Whatever comes after an error is the same error."""
    commands: list[list[bytes]] = []
    for more in (b"*1\r\n$4\r\nPING\r\n", b""):
        try:
            commands = list(decoder.feed(more))
        except ProtocolError as error:
            if str(error) == said:
                continue
        raise AssertionError(f"after an error came {commands}, or another error")


def encode(commands: list[list[bytes]]) -> bytes:
    return b"".join(
        b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words) for words in commands
    )


def check(data: bytes) -> None:
    """The decoder is total, and however the bytes are cut, they mean the same; its commands, encoded, come back.

    Raises:
        AssertionError: or not.
    """
    for limits in (LIMITS, STRANGER):
        commands, error = decode([data], limits)
        source = random.Random(data)
        cuts = sorted(source.randrange(len(data) + 1) for _ in range(4))
        parts = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        assert decode(parts, limits) == (commands, error), "cut elsewhere, it means something else"
        assert decode([data[place : place + 1] for place in range(len(data))], limits) == (commands, error)
    whole, _ = decode([data], LIMITS)
    assert decode([encode(whole)], Limits()) == (whole, None), "encoded, they do not come back"


def main() -> int:
    try:
        import atheris
    except ImportError:
        print("fuzz_decoder: atheris is not installed; pip install atheris", file=sys.stderr)
        return 2
    atheris.instrument_all()
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
