#!/usr/bin/env python3
"""Write what is made from tables; with --check, only compare.

docs/configuration.md is made from the settings in kvserver/config/settings.py, the README's tables of libraries from
tests/ecosystem/matrix.py.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kvserver.commands.configuration import FIXED
from kvserver.config import OPTIONS, Option

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "configuration.md"
README = ROOT / "README.md"
sys.path.insert(0, str(ROOT / "tests" / "ecosystem"))

_INTRODUCTION = """\
# Settings

<!-- Made by scripts/docs.py from the table in kvserver/config/settings.py. Change that, not this. -->

A setting can be given in four places. The first of these that has it counts:

1. a flag: `kvserver --port 7000`;
2. an environment variable: `KVSERVER_PORT=7000`;
3. a TOML file, named by `--config FILE` or by `KVSERVER_CONFIG`: `port = 7000`;
4. the default.

```toml
# kvserver.toml
port = 7000
host = ["127.0.0.1", "::1"]
maxclients = 500
max-bulk-length = "64mb"
```

In the file a setting goes by its flag's name without the dashes in front, or by its name in `CONFIG GET`. A name
that is not in this table, or a value that cannot be used, stops the start with one line that says so, and exit
status 2.

Sizes are in bytes, or with a unit: `1k` is 1,000 and `1kb` is 1,024 bytes; so with `m`, `mb`, `g` and `gb`. Times are
in whole seconds. A program that embeds the server gives settings by the names of `kvserver.Config`:
`kvserver.Server(port=0, maxclients=50)`; the environment and the file do not count there.

While the server runs, `CONFIG GET` shows every setting, and `CONFIG SET` changes those marked so below, until the
server stops. A change holds at once; one of `write-timeout` or `tcp-keepalive` holds for connections made after it.

## All of them
"""

_READ_ONLY = """## Names that only answer

Tools ask for these settings of Redis. They have one value here, and `CONFIG SET` takes no other.
But `cluster-enabled` is `yes` where `cluster-mode` is `emulated`.
"""


def page() -> str:
    """The whole page."""
    parts = [_INTRODUCTION, *map(_section, OPTIONS), _READ_ONLY, "| name | value |", "|---|---|"]
    parts += [f"| `{name}` | {f'`{value}`' if value else 'empty'} |" for name, value in sorted(FIXED.items())]
    return "\n".join(parts) + "\n"


def _section(option: Option) -> str:
    default = option.kind.show(option.default)
    rows = [
        ("takes", _accepted(option)),
        ("flag", f"`{option.flag} {option.kind.metavar}`"),
        ("environment", f"`{option.variable}`"),
        ("in `CONFIG GET`", f"`{option.config_name}`" + (", and `CONFIG SET`" if option.live else "")),
        ("default", f"`{default}`" if default else "none"),
    ]
    return "\n".join(
        [
            f"### {option.name.replace('_', '-')}",
            "",
            option.summary,
            "",
            *(f"- {name}: {value}" for name, value in rows),
            "",
        ]
    )


def _accepted(option: Option) -> str:
    """What the setting takes, in the words that its parser has for somebody who gives something else."""
    try:
        option.kind.parse("")
    except ValueError as error:
        return str(error)
    return "any text"


def readme() -> str:
    """The README with its tables of libraries made anew."""
    from matrix import table  # from the tests' folder, named above

    before, rest = README.read_text(encoding="utf-8").split("<!-- ecosystem: ", 1)
    mark, rest = rest.split("\n", 1)
    after = rest.split("<!-- /ecosystem -->", 1)[1]
    return f"{before}<!-- ecosystem: {mark}\n\n{table()}\n\n<!-- /ecosystem -->{after}"


def main() -> int:
    """Write or check; the exit status."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--check", action="store_true", help="write nothing; exit 1 if something is out of date")
    check = arguments.parse_args().check
    outdated = [
        (path, text)
        for path, text in ((TARGET, page()), (README, readme()))
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for path, text in outdated:
        if check:
            print(f"{path.name} is out of date; run scripts/docs.py", file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8")
    return 1 if check and outdated else 0


if __name__ == "__main__":
    sys.exit(main())
