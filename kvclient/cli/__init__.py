"""The command line: `kv [URL] [COMMAND ARGS...]`. One command, a prompt if there is none, or one of its own tools.

What belongs to one subject is in a module of its own: session.py asks the server, display.py shows replies, prompt.py
reads lines, docs.py knows the commands, and importing.py, exporting.py, watch.py and top.py are the tools.
Here is what starts them, and what becomes of errors.

Exit status: 0, or 1 if the server refused the command, or 2 if nothing could be asked.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from kvclient.cli.arguments import TOOLS, Given, parse
from kvclient.cli.display import complain
from kvclient.cli.session import Problem, Session
from kvclient.errors import KVError

if TYPE_CHECKING:
    from collections.abc import Sequence

USAGE_STATUS: Final = 2
INTERRUPT_STATUS: Final = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with these arguments (default: the process's own); return its exit status."""
    try:
        given = parse(sys.argv[1:] if argv is None else argv)
        if given.tool is not None:
            return TOOLS[given.tool].run(given)
        return _run(given)
    except (KVError, Problem, ValueError) as error:
        complain(error)
        return USAGE_STATUS
    except KeyboardInterrupt:
        return INTERRUPT_STATUS
    except BrokenPipeError:
        # Whoever read our output has gone. Python would complain when it flushes at exit; it shall not.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(given: Given) -> int:
    """One command, or the prompt."""
    session = Session(given.options, given.form)
    try:
        if given.words:
            return session.run(given.words)
        from kvclient.cli.prompt import prompt  # here, since few commands need it

        return prompt(session, given.options)
    finally:
        session.close()
