"""The data: dicts of bytes, their deadlines, and what finds keys in them. No commands, no sockets, no replies."""
