"""Every setting, once: one table makes the flags, the environment, the file, CONFIG GET, the help and the docs.

``settings.py`` is the table, ``kinds.py`` how texts become values, ``sources.py`` where the texts are found.
"""

from kvserver.config.kinds import POLICIES, ConfigError, OutputLimit, Password
from kvserver.config.settings import OPTIONS, Config, Option
from kvserver.config.sources import load, password_of, with_settings

__all__ = [
    "OPTIONS",
    "POLICIES",
    "Config",
    "ConfigError",
    "Option",
    "OutputLimit",
    "Password",
    "load",
    "password_of",
    "with_settings",
]
