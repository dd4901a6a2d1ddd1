"""Where settings are found: flags win over the environment, that over the file, and the file over the default."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kvserver.config.kinds import ConfigError, Password, ServerURL, hash_password
from kvserver.config.settings import OPTIONS, Config

_BY_FILE_NAME = {name: option for option in OPTIONS for name in (option.name.replace("_", "-"), option.config_name)}
_NOT_SETTINGS = {"KVSERVER_CONFIG", "KVSERVER_COMPILE", "KVSERVER_PURE"}  # the last two: see build.py


def load(flags: Mapping[str, str], environment: Mapping[str, str] | None = None, file: str | None = None) -> Config:
    """Settle every setting.

    Args:
        flags: option name to text, for the flags that were given.
        environment: where ``KVSERVER_*`` is looked up; the process's own by default.
        file: a TOML file; ``KVSERVER_CONFIG`` names one when this is None.

    Raises:
        ConfigError: with one line for the first thing that is wrong.
    """
    environment = os.environ if environment is None else environment
    file = file or environment.get("KVSERVER_CONFIG")
    values = _from_file(file) if file else {}
    values |= _from_environment(environment)
    by_name = {option.name: option for option in OPTIONS}
    values |= {name: by_name[name].parse(text, by_name[name].flag) for name, text in flags.items()}
    return Config(**values)


def password_of(config: Config) -> Password:
    """The password that clients must give, from wherever it is told; empty for none.

    Raises:
        ConfigError: its file cannot be read, or it is told twice.
    """
    if not config.password_file:
        return config.requirepass
    if config.requirepass:
        raise ConfigError("--password-file: there is a password in requirepass too; give one of the two.")
    try:
        text = Path(config.password_file).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise ConfigError(f"--password-file {config.password_file}: cannot be read: {error.strerror}.") from None
    password = text.removesuffix("\n").removesuffix("\r")
    if not password:
        raise ConfigError(f"--password-file {config.password_file}: is empty; write the password into it.")
    return hash_password(password)


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    known = {option.variable: option for option in OPTIONS}
    values: dict[str, Any] = {}
    for variable, text in environment.items():
        if variable in known:
            values[known[variable].name] = known[variable].parse(text, variable)
        elif variable.startswith("KVSERVER_") and variable not in _NOT_SETTINGS:
            raise ConfigError(f"{variable}: there is no such setting; kvserver --help lists them.")
    return values


def _from_file(file: str) -> dict[str, Any]:
    try:
        with Path(file).open("rb") as source:
            settings = tomllib.load(source)
    except OSError as error:
        raise ConfigError(f"--config {file}: cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:  # a syntax error, a wrong encoding, a number or nesting without end
        raise ConfigError(f"--config {file}: is not TOML: {str(error)[:200]}.") from None
    values: dict[str, Any] = {}
    for name, value in settings.items():
        option = _BY_FILE_NAME.get(name.replace("_", "-"))
        if option is None:
            raise ConfigError(f"--config {file}: there is no setting {name!r}; kvserver --help lists them.")
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        values[option.name] = option.parse(text, f"--config {file}: {name}")
    return values


def with_settings(config: Config, settings: dict[str, Any]) -> Config:
    """``config`` with some settings changed; text is parsed as on the command line.

    Raises:
        ConfigError: there is no such setting, or it cannot be used.
    """
    known = {option.name: option for option in OPTIONS}
    values: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in known:
            raise ConfigError(f"there is no setting {name!r}; Config lists them.")
        if isinstance(value, Password | ServerURL):
            values[name] = value
            continue
        option = known[name]
        if value is None and option.default == "":  # none of it, as an empty text says elsewhere
            value = ""
        text = option.kind.show(value) if not isinstance(value, str) else value
        values[name] = option.parse(text, name)
    return replace(config, **values)
