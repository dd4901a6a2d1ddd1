"""What of a command may be shown to others: in MONITOR, SLOWLOG and COMMANDLOG. No password ever is."""

from __future__ import annotations

from collections.abc import Sequence

_REDACTED = b"(redacted)"
_PASSWORD_RULES = {b">", b"<", b"#", b"!"}
_SECRET_SETTINGS = {b"requirepass", b"masterauth", b"primaryauth", b"masteruser", b"tls-key-file-pass"}


def redacted(words: Sequence[bytes]) -> list[bytes]:
    """The words of a command, with what is secret replaced."""
    match [word.lower() for word in words[:2]]:
        case [b"auth", *_]:
            return [words[0], *[_REDACTED] * (len(words) - 1)]
        case [b"hello", *_]:
            return _without_password(words)
        case [b"acl", b"setuser"]:
            return [*words[:3], *(_REDACTED if word[:1] in _PASSWORD_RULES else word for word in words[3:])]
        case [b"config", b"set"]:
            return _without_secret_settings(words)
    return list(words)


def _without_password(words: Sequence[bytes]) -> list[bytes]:
    shown = list(words)
    for place, word in enumerate(words[2:], 2):
        if word.lower() == b"auth":
            shown[place + 1 : place + 3] = [_REDACTED] * len(shown[place + 1 : place + 3])
            break
    return shown


def _without_secret_settings(words: Sequence[bytes]) -> list[bytes]:
    shown = list(words)
    for place in range(2, len(words) - 1, 2):
        if words[place].lower() in _SECRET_SETTINGS:
            shown[place + 1] = _REDACTED
    return shown
