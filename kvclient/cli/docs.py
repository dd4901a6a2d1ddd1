"""What the server says about its commands (COMMAND DOCS): for help and for completion at the prompt.

Not here: reading lines (prompt.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kvclient.errors import KVError, ServerError
from kvclient.text import harmless

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kvclient.cli.session import Session


@dataclass
class CommandDocs:
    """One command, or a subcommand by its whole name.

    Attributes:
        name: in capitals, as in "CONFIG GET".
        summary: one sentence.
        syntax: the arguments, as in "key value [NX | XX]".
        tokens: the words in it that are to be typed as they are.
        since: the version that brought it.
    """

    name: str
    summary: str = ""
    syntax: str = ""
    since: str = ""
    tokens: list[str] = field(default_factory=list)


def load(session: Session) -> dict[str, CommandDocs]:
    """All commands of the server by name; none if it does not tell."""
    try:
        reply = session.ask([b"COMMAND", b"DOCS"])
    except KVError:
        return {}
    if isinstance(reply, ServerError):
        return {}
    found = {}
    for name, entry in _table(reply).items():
        for docs in _commands(name, _table(entry)):
            found[docs.name] = docs
    return found


def _commands(name: str, entry: dict[str, Any]) -> Iterator[CommandDocs]:
    """A command and its subcommands."""
    arguments = [_table(argument) for argument in entry.get("arguments", [])]
    yield CommandDocs(
        name.replace("|", " ").upper(),
        _text(entry.get("summary", "")),
        " ".join(map(_syntax, arguments)),
        _text(entry.get("since", "")),
        list(dict.fromkeys(_tokens(arguments))),
    )
    for each, inner in _table(entry.get("subcommands", {})).items():
        yield from _commands(each, _table(inner))


def _syntax(argument: dict[str, Any]) -> str:
    """One argument in the notation of the command documentation."""
    inner = [_table(each) for each in argument.get("arguments", [])]
    flags = {_text(flag) for flag in argument.get("flags", ())}
    kind = _text(argument.get("type", ""))
    if kind == "oneof":
        text = " | ".join(map(_syntax, inner))
    elif kind == "block":
        text = " ".join(map(_syntax, inner))
    else:
        text = "" if kind == "pure-token" else _text(argument.get("display_text") or argument.get("name", ""))
    token = _text(argument.get("token", ""))
    repeated = text
    if "multiple" in flags:
        repeated = f"{token} {text}".strip() if "multiple_token" in flags else text
        text = f"{text} [{repeated} ...]"
    text = f"{token} {text}".strip()
    if "optional" in flags:
        return f"[{text}]"
    return f"<{text}>" if kind == "oneof" else text


def _tokens(arguments: Sequence[dict[str, Any]]) -> Iterator[str]:
    for argument in arguments:
        if token := _text(argument.get("token", "")):
            yield token
        yield from _tokens([_table(each) for each in argument.get("arguments", [])])


def _table(reply: Any) -> dict[str, Any]:
    """A map, in RESP3 or as the flat list of RESP2, with its keys as text."""
    if isinstance(reply, list):
        reply = dict(zip(reply[::2], reply[1::2], strict=False))
    return {_text(key): value for key, value in reply.items()} if isinstance(reply, dict) else {}


def _text(data: Any) -> str:
    return harmless(data.decode("utf-8", "replace") if isinstance(data, bytes) else str(data))


def described(words: Sequence[str], known: dict[str, CommandDocs]) -> CommandDocs | None:
    """The command that a line begins with, the longest name that fits."""
    for count in (2, 1):
        found = known.get(" ".join(words[:count]).upper())
        if found is not None and len(words) >= count:
            return found
    return None


def completions(line: str, known: dict[str, CommandDocs]) -> list[str]:
    """What the last word of a line may become."""
    words = line.split()
    if not words or line[-1:].isspace():
        words.append("")
    last = words[-1].upper()
    if len(words) == 1:
        return sorted({name.split()[0] for name in known if name.startswith(last)})
    before = words[0].upper()
    choices: list[str] = []
    if len(words) == 2:
        choices += sorted(name.split()[1] for name in known if name.startswith(before + " "))
    found = described(words[:-1], known)
    used = {word.upper() for word in words[1:-1]}
    if found is not None:
        choices += [token for token in found.tokens if token not in used]
    return [choice for choice in choices if choice.startswith(last)]


def help_on(words: Sequence[str], known: dict[str, CommandDocs]) -> str:
    """What `help COMMAND` shows.

    Raises:
        ValueError: there is no such command.
    """
    if not words:
        return "help COMMAND explains a command; Tab completes; Ctrl-D ends. Every other line is sent to the server."
    if not known:
        raise ValueError("this server tells nothing about its commands")
    found = described(words, known)
    if found is None:
        raise ValueError(f"there is no command {' '.join(words)!r} here: try COMMAND LIST")
    since = f"\nsince {found.since}" if found.since else ""
    inner = sorted(name for name in known if name.startswith(found.name + " "))
    return f"{found.name} {found.syntax}".rstrip() + f"\n{found.summary}{since}" + "".join(f"\n  {n}" for n in inner)
