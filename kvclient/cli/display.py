"""How replies look: with colours on a terminal if rich is installed, plain otherwise, and as JSON.

Not here: the text itself (text.py one folder up), which no reply can use to drive the terminal.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from kvclient.errors import ServerError
from kvclient.text import harmless, show

if TYPE_CHECKING:
    from kvclient.protocol import Reply

_STYLES: Final = {"(integer)": "cyan", "(double)": "cyan", "(nil)": "dim", "(error)": "bold red", "(empty": "dim"}


def has_rich() -> bool:
    """Whether colours and progress bars can be had, and are wanted."""
    return "NO_COLOR" not in os.environ and importlib.util.find_spec("rich") is not None


def write_typed(reply: Reply) -> None:
    """Show a reply for people."""
    text = show(reply)
    if not (sys.stdout.isatty() and has_rich()):
        sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace") + b"\n")
        sys.stdout.buffer.flush()
        return
    from rich.console import Console
    from rich.text import Text

    shown = Text(text)
    shown.highlight_regex(r'"(?:[^"\\]|\\.)*"', "green")
    shown.highlight_regex(r"(?m)^ *\d+[)#~]", "dim")
    for word, style in _STYLES.items():
        shown.highlight_words([word], style)
    Console(highlight=False, soft_wrap=True).print(shown)


def complain(problem: object) -> None:
    """Tell of an error, or another text, in one line on standard error."""
    sys.stderr.write(f"kv: {harmless(' '.join(str(problem).split()))}\n")


def as_json(reply: Reply) -> str:
    """A reply as JSON: bytes as text if they are UTF-8, otherwise {"base64": ...}; a map's keys are always text."""
    return json_line(_plain(reply))


def json_line(value: Any) -> str:
    """JSON in one line, in which what cannot be printed is escaped, so that it can be shown on a terminal as well."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(value)


def _plain(reply: Any) -> Any:
    if isinstance(reply, bytes):
        return text_or_base64(reply)
    if isinstance(reply, dict):
        return {_key(key): _plain(value) for key, value in reply.items()}
    if isinstance(reply, list | set | tuple | frozenset):
        return [_plain(item) for item in reply]
    return f"{reply.code} {reply.message}".strip() if isinstance(reply, ServerError) else reply


def _key(key: Any) -> str:
    return key.decode("utf-8", "backslashreplace") if isinstance(key, bytes) else str(key)


def text_or_base64(data: bytes) -> str | dict[str, str]:
    """Bytes in JSON."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
