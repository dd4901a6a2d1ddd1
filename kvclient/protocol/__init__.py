"""RESP without input or output, the client's half: commands to bytes, and bytes to replies. See protocol.md."""

from kvclient.protocol.decoder import INCOMPLETE, OK, Decoder, Incomplete, decode_single
from kvclient.protocol.encoder import encode_command, to_bytes
from kvclient.protocol.types import Key, Name, Push, Reply, SimpleString, Value, Verbatim

__all__ = [
    "INCOMPLETE",
    "OK",
    "Decoder",
    "Incomplete",
    "Key",
    "Name",
    "Push",
    "Reply",
    "SimpleString",
    "Value",
    "Verbatim",
    "decode_single",
    "encode_command",
    "to_bytes",
]
