"""Durability: what is on disk, how it gets there, and how it comes back.

    effects.py    changes of the keyspace, as commands that have the same effect
    format.py     commands as bytes of a file, and back
    directory.py  the files, their manifest, and whose they are
    writer.py     the journal while the server runs: written, synced, waited for
    rewrite.py    a new base in the place of a long journal
    recovery.py   the files back into a keyspace
    tools.py      check, repair and backup

The files are those of Redis' multi-part AOF, so Redis and Valkey start on the directory. Not here: sockets, and what
commands do.
"""
