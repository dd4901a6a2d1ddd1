"""The server's half of ``protocol.md``, sans I/O: bytes to commands, replies to bytes.

No socket, no store, no clock.
"""
