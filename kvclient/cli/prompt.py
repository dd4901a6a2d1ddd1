"""The prompt: lines from a person, with history, completion and hints if prompt_toolkit is there; or from a pipe.

Not here: what a line does (session.py), and what is known of commands (docs.py).
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kvclient.cli.display import complain
from kvclient.cli.docs import CommandDocs, completions, described, help_on, load
from kvclient.cli.session import Problem, Session
from kvclient.errors import BadURLError, KVError
from kvclient.text import split_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from kvclient.url import Options

_SECRET_COMMANDS: Final = ("auth", "hello", "acl", "migrate")
_SECRET_WORDS: Final = ("requirepass", "primaryauth", "masterauth", "password")
_USAGE_STATUS: Final = 2


def prompt(session: Session, options: Options) -> int:
    """Run commands line by line; an error ends the command and not the prompt. The last one's status remains."""
    interactive = sys.stdin.isatty()
    status = 0
    known = load(session) if interactive else {}
    for line in _lines(f"{options.address}> ", known) if interactive else sys.stdin.buffer:
        try:
            words = split_line(line)
            if not words:
                continue
            if words[0].lower() in {b"quit", b"exit"}:
                break
            if interactive and words[0].lower() == b"help":
                print(help_on([word.decode("utf-8", "replace") for word in words[1:]], known))  # noqa: T201
                continue
            status = session.run(words)
        except BadURLError:
            raise
        except (KVError, Problem, ValueError) as error:
            complain(error)
            status = _USAGE_STATUS
        except KeyboardInterrupt:
            if not interactive:
                raise
            sys.stderr.write("interrupted\n")
    return 0 if interactive else status


def is_secret(line: str) -> bool:
    """Whether a line may hold a password, and so is not kept in the history."""
    words = line.lower().split()
    return bool(set(words[:1]) & set(_SECRET_COMMANDS)) or any(word in line.lower() for word in _SECRET_WORDS)


def history_file() -> Path | None:
    """Where lines are kept between runs, for this user alone; None if there is no such place."""
    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "kv"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / "history"
        path.touch(0o600)
    except (OSError, RuntimeError):
        return None
    return path


def _lines(text: str, known: dict[str, CommandDocs]) -> Iterator[bytes]:
    """Lines from a terminal, until its end."""
    has_toolkit = importlib.util.find_spec("prompt_toolkit") is not None and sys.stdout.isatty()
    read = _with_toolkit(text, known) if has_toolkit else _plainly(text, known)
    while True:
        try:
            yield read().encode("utf-8", "surrogateescape")
        except EOFError:
            sys.stdout.write("\n")
            return
        except KeyboardInterrupt:
            sys.stdout.write("\n")


def _plainly(text: str, known: dict[str, CommandDocs]) -> Callable[[], str]:
    """By input(), with the editing and completion of readline where there is one."""
    with contextlib.suppress(ImportError):
        import readline

        readline.set_completer_delims(" ")
        readline.set_completer(lambda _, at: _nth(completions(readline.get_line_buffer(), known), at))
        readline.parse_and_bind("tab: complete")
    return lambda: input(text)


def _nth(choices: list[str], at: int) -> str | None:
    return choices[at] + " " if at < len(choices) else None


def _with_toolkit(text: str, known: dict[str, CommandDocs]) -> Callable[[], str]:
    """By prompt_toolkit: history, completion as one types, and the syntax of the command below."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.application import get_app
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.document import Document
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    class Words(Completer):
        def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
            del complete_event  # asked for or not, the choices are the same
            before = document.text_before_cursor
            last = "" if not before or before[-1].isspace() else before.split()[-1]
            for choice in completions(before, known):
                about = known.get(choice)
                yield Completion(choice, -len(last), display_meta=about.summary if about else "")

    class Careful(FileHistory):
        def store_string(self, string: str) -> None:
            if not is_secret(string):
                super().store_string(string)

    def toolbar() -> str:
        found = described(get_app().current_buffer.text.split(), known)
        return f"{found.name} {found.syntax}" if found else "help COMMAND, Tab completes, Ctrl-D ends"

    path = history_file()
    session: PromptSession[str] = PromptSession(
        text,
        completer=Words(),
        history=InMemoryHistory() if path is None else Careful(str(path)),
        bottom_toolbar=toolbar,
        complete_while_typing=True,
    )
    return session.prompt
