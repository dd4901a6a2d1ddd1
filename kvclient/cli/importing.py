"""`kv import`: keys from a file of lines, stored in pipelines. Not here: how a line looks (records.py)."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from kvclient.cli.progress import progress
from kvclient.cli.records import from_line
from kvclient.cli.session import Problem
from kvclient.client import Client, client_of
from kvclient.serializers import PLAIN

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from kvclient.cli.arguments import Given

PAGE: Final = 500  # keys that are sent together
_PAGE_BYTES: Final = 4 * 1024 * 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The tool's options."""
    parser.add_argument("file", metavar="FILE", help="what kv export has written; - for standard input")
    parser.add_argument("--keep", action="store_true", help="leave keys that exist as they are")
    parser.description = (
        'Stores keys from lines such as {"key": "a", "value": "1", "expires": 1795617602000}: text, or {"base64": ""}'
        " where it is not UTF-8; the end of life in milliseconds since 1970, if there is one."
    )


def run(given: Given) -> int:
    """Store them all; returns the exit status.

    Raises:
        Problem: a file that cannot be read, or a line that is none; what came before it is stored.
    """
    name = given.settings.file
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(client_of(given.options, PLAIN))
        client.check()
        try:
            file: BinaryIO = sys.stdin.buffer if name == "-" else stack.enter_context(Path(name).open("rb"))
            size = os.fstat(file.fileno()).st_size or None
        except (OSError, ValueError) as error:
            raise Problem(f"cannot read {name}: {getattr(error, 'strerror', error)}") from None
        advance = stack.enter_context(progress("importing", size, is_bytes=True))
        stored = _store(client, file, advance, keep=given.settings.keep)
    sys.stderr.write(f"imported {stored} keys\n")
    return 0


def _store(client: Client, file: BinaryIO, advance: Callable[[int], object], *, keep: bool) -> int:
    pipeline = client.pipeline()
    stored = size = 0

    def send() -> None:
        nonlocal stored, size
        stored += sum(map(bool, pipeline.run()))
        advance(size)
        size = 0

    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            record = from_line(line)
        except ValueError as error:
            send()
            raise Problem(f"line {number}: {error}. Nothing after it was read; {stored} keys are stored") from None
        if record.expires is None:
            pipeline.set(record.key, record.value, if_absent=keep)
        else:
            pipeline.set(record.key, record.value, expire_at=record.expires / 1000, if_absent=keep)
        size += len(line)
        if len(pipeline) == PAGE or size > _PAGE_BYTES:
            send()
    send()
    return stored
