"""`kvserver stubs MODULE`: a module of typed functions that call a module's Python commands through kvclient."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from kvserver import extensions


def stubs(module: str, say: Callable[[str], object]) -> int:
    """Print a Python module with one typed function for each command that a module adds; returns the exit status."""
    try:
        extensions.load(module)
    except ValueError as error:
        say(f"kvserver: {error}")
        return 2
    say(source())
    return 0


def source() -> str:
    """The text of that module."""
    lines = [
        '"""Typed calls of commands written in Python; made by kvserver stubs."""',
        "",
        "from typing import Any",
        "",
        "import kvclient",
    ]
    for name, function in extensions.functions():
        lines += ["", "", *_function(name, function)]
    return "\n".join(lines)


def _function(name: str, function: Callable[..., object]) -> list[str]:
    parameters = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    declared = ", ".join(_declared(each) for each in parameters)
    passed = "".join(f", {'*' if each.kind is each.VAR_POSITIONAL else ''}{each.name}" for each in parameters)
    result = inspect.signature(function).return_annotation
    shown = {"int": "int", "bool": "bool", "float": "float", "bytes": "bytes", "None": "None"}.get(
        result if isinstance(result, str) else getattr(result, "__name__", ""), "Any"
    )
    summary = (inspect.getdoc(function) or name).partition("\n")[0]
    return [
        f"def {name.lower().replace('.', '_')}(client: kvclient.Client[Any, Any], {declared}) -> {shown}:".replace(
            ", )", ")"
        ),
        f'    """{summary}"""',
        f'    result: Any = client.execute("{name}"{passed})',
        "    return None" if shown == "None" else "    return result",
    ]


def _declared(parameter: inspect.Parameter) -> str:
    kind = {bytes: "bytes | str", str: "str", int: "int", float: "float"}[parameter.annotation]
    star = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
    default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
    return f"{star}{parameter.name}: {kind}{default}"
