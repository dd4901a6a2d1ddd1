"""Every error reply's text, each once. No logic but filling in a name.

The texts are those of Valkey, which clients match on; ``protocol.md`` lists them with the connection's fate.
A text is raised as ``Error(SYNTAX)``, a new exception each time: one that is kept and raised again would
gather tracebacks for ever, and be shared between threads.
"""

from __future__ import annotations

from kvserver.protocol.replies import Error

SYNTAX = "ERR syntax error"
NOT_AN_INTEGER = "ERR value is not an integer or out of range"
NOT_32_BITS = "ERR value is out of range, value must between -2147483648 and 2147483647"
NOT_A_FLOAT = "ERR value is not a valid float"
OVERFLOW = "ERR increment or decrement would overflow"
DECREMENT_OVERFLOW = "ERR decrement would overflow"
NAN_OR_INFINITY = "ERR increment would produce NaN or Infinity"
NO_SUCH_KEY = "ERR no such key"
SAME_OBJECT = "ERR source and destination objects are the same"
OFFSET_OUT_OF_RANGE = "ERR offset is out of range"
STRING_TOO_LONG = "ERR string exceeds maximum allowed size (proto-max-bulk-len)"
DB_OUT_OF_RANGE = "ERR DB index is out of range"
BAD_CURSOR = "ERR invalid cursor"
EXPIRE_NX_WITH_OTHERS = "ERR NX and XX, GT or LT options at the same time are not compatible"
EXPIRE_GT_AND_LT = "ERR GT and LT options at the same time are not compatible"
LCS_LEN_AND_IDX = "ERR If you want both the length and indexes, please just use IDX."
LFU_NOT_SELECTED = (
    "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when "
    "switching between policies at runtime LRU and LFU data will take some time to adjust."
)
LFU_SELECTED = (
    "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between policies "
    "at runtime LRU and LFU data will take some time to adjust."
)
WRONG_PASSWORD = "WRONGPASS invalid username-password pair or user is disabled."
NO_PASSWORD_SET = (
    "ERR AUTH <password> called without any password configured for the default user. "
    "Are you sure your configuration is correct?"
)
NO_AUTH = "NOAUTH Authentication required."
NO_AUTH_HELLO = (
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> "
    "option can be used to authenticate the client and select the RESP protocol version at the same time"
)
NO_KEY_PERMISSION = "NOPERM No permissions to access a key"
NO_CHANNEL_PERMISSION = "NOPERM No permissions to access a channel"
NO_DATABASE_PERMISSION = "NOPERM No permissions to access database"
PROTECTED = (
    "DENIED this server lets in only its own machine, since it has no password. Set one with CONFIG SET requirepass, "
    "or start the server with --protected-mode no"
)
UNSUPPORTED_PROTOCOL = "NOPROTO unsupported protocol version"
PROTOCOL_NOT_AN_INTEGER = "ERR Protocol version is not an integer or out of range"
BAD_CLIENT_NAME = "ERR Client names cannot contain spaces, newlines or special characters."
NO_CLUSTER = "ERR This instance has cluster support disabled"
NO_CLUSTER_REPORT = "ERR there is no report: start the server with --cluster-mode report, or emulated"
NO_SWAPDB_IN_CLUSTER = "ERR SWAPDB is not allowed in cluster mode"
CROSS_SLOT = "CROSSSLOT Keys in request don't hash to the same slot"
BAD_SLOT = "ERR Invalid slot"
BAD_SLOT_OR_COUNT = "ERR Invalid slot or number of keys"
NO_SUCH_CLIENT = "ERR No such client"
OUT_OF_MEMORY = "OOM command not allowed: the server has no memory left for it."
TRANSACTION_TOO_LONG = "ERR Protocol error: transaction exceeds client-query-buffer-limit"
MAXMEMORY = "OOM command not allowed when used memory > 'maxmemory'."
INTERNAL = "ERR internal error; the server's log has the details"
LOADING = "LOADING Redis is loading the dataset in memory"
MAX_CLIENTS = "ERR max number of clients reached"
NO_THREAD = "ERR the server cannot start another thread; try again later"
NO_DESCRIPTOR = "ERR the server has no file descriptor left for this; try again later"
MULTI_NESTED = "ERR MULTI calls can not be nested"
WATCH_IN_MULTI = "ERR WATCH inside MULTI is not allowed"
EXEC_WITHOUT_MULTI = "ERR EXEC without MULTI"
DISCARD_WITHOUT_MULTI = "ERR DISCARD without MULTI"
EXEC_ABORTED = "EXECABORT Transaction discarded because of previous errors."
MONITORING = "ERR Replica can't interact with the keyspace"
NO_SCRIPT = "NOSCRIPT No matching script."
NO_LUA = (
    "ERR this server runs no Lua: it knows the scripts of some libraries, as protocol.md lists them, and this is none "
    "of those"
)
BAD_NUMKEYS = "ERR invalid numkeys value or out of range"
BAD_LEASE = "ERR a lease lasts from 1 to 86400000 milliseconds, and a value is stale from 0 on"
TOO_MANY_LEASES = "ERR too many leases are held: give them a shorter time"
BAD_TOKEN = "ERR a token has 1 to 128 bytes, and an outcome is kept for 1 to 86400000 milliseconds"
TOKEN_REUSED = "ERR this token was used for another command: use a new one for each"
NOT_FOR_ONCE = "ERR KV.ONCE runs commands that change keys, and others may simply be sent again"
TOO_MANY_OUTCOMES = "ERR too many outcomes are being kept: give them a shorter time, or raise once-max-outcomes"
CLOCK_NOT_ALLOWED = (
    "ERR KV.CLOCK is for tests, and not allowed here: start the server with --clock-command local, or yes"
)
NO_DIGEST = "ERR digests need the Python package xxhash on the server: pip install 'kvserver[digest]'"
NOT_A_DIGEST = "ERR a digest has exactly 16 hexadecimal digits"
BOUNDS_CROSSED = "ERR LBOUND must not exceed UBOUND"
BIT_OFFSET = "ERR bit offset is not an integer or out of range"
BIT_VALUE = "ERR bit is not an integer or out of range"
BIT_ARGUMENT = "ERR The bit argument must be 1 or 0."
BITOP_NOT = "ERR BITOP NOT must be called with a single source key."
BITFIELD_TYPE = "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is."
BITFIELD_OVERFLOW = "ERR Invalid OVERFLOW type specified"
BITFIELD_READ_ONLY = "ERR BITFIELD_RO only supports the GET subcommand"
TIMEOUT_OUT_OF_RANGE = "ERR timeout is out of range"
NOT_POSITIVE = "ERR value is out of range, must be positive"
NEGATIVE_TIMEOUT = "ERR timeout is negative"

_QUOTED_BYTES = 128
"""How much of a client's own text an error repeats."""


def cannot_write(why: str) -> Error:
    """The journal takes no changes, ``why`` being the system's word for it."""
    return Error(f"MISCONF Errors writing to the AOF file: {why}")


def no_permission(user: str, name: str) -> Error:
    """For a command that the user may not run; ``name`` in lower case."""
    return Error(f"NOPERM User {user} has no permissions to run the '{name}' command")


def no_longer_allowed(why: str) -> Error:
    """For a command of a transaction, after a user's permissions have been changed."""
    return Error(
        "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This command "
        f"is no longer allowed for the following reason: {why}"
    )


def quote(raw: bytes) -> str:
    """A client's bytes for use in an error: cut to 128 bytes, or at a NUL as Valkey's are; else binary-safe."""
    return _text(_cut(raw, _QUOTED_BYTES))


def _cut(raw: bytes, limit: int) -> bytes:
    return raw[:limit].partition(b"\0")[0]


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def unknown_command(command: list[bytes]) -> Error:
    """Quotes the name and as many arguments as fit, each within the same small budget of bytes."""
    shown = b""
    for argument in command[1:]:
        if len(shown) >= _QUOTED_BYTES:
            break
        shown += b"'%b' " % _cut(argument, _QUOTED_BYTES - len(shown))
    return Error(f"ERR unknown command '{quote(command[0])}', with args beginning with: {_text(shown)}")


def unknown_subcommand(container: str, given: bytes) -> Error:
    """For CLIENT, CONFIG and the other commands that have subcommands."""
    return Error(f"ERR unknown subcommand '{quote(given)}'. Try {container.upper()} HELP.")


def unknown_subcommand_or_arity(container: str, given: bytes) -> Error:
    """For subcommands that check their own number of arguments; ``given`` is shown as it was written."""
    return Error(f"ERR unknown subcommand or wrong number of arguments for '{quote(given)}'. Try {container} HELP.")


class SubcommandUsageError(Exception):
    """Raised by a handler that counts its own arguments; dispatch knows how the subcommand was written."""


def wrong_arity(name: str) -> Error:
    """``name`` in lower case, a subcommand as ``container|name``."""
    return Error(f"ERR wrong number of arguments for '{name}' command")


def only_subscriptions(name: str) -> Error:
    """For what a RESP2 connection may not do while it is subscribed; ``name`` in lower case."""
    return Error(
        f"ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this "
        "context"
    )


def not_in_transaction(name: str) -> Error:
    """For what cannot be queued; ``name`` in lower case, a subcommand as ``container|name``."""
    return Error(f"ERR Command '{name}' not allowed inside a transaction")


def exec_aborted_by(error: Error) -> Error:
    """For an EXEC that was refused itself, and took the transaction with it."""
    return Error(f"EXECABORT Transaction discarded because of: {error.text.removeprefix('ERR ')}")


def invalid_expire(name: str) -> Error:
    """A time to live that is not positive or does not fit 64 bits of milliseconds."""
    return Error(f"ERR invalid expire time in '{name}' command")
