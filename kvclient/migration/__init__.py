"""Copying all keys of one server to another while programs go on writing: what `kv migrate` does.

What belongs to one subject is in a module of its own: plan.py decides what comes next, ledger.py remembers what was
copied, ears.py hears of changes, sides.py is the two servers, clusters.py the same for a cluster, reading.py and
copying.py move keys, verifying.py compares, state.py is the file by which a run goes on where another ended,
settings.py is what is asked for and how it ends, and migrating.py is all of it together.
Not here: arguments and what is shown (cli/migrate.py).
"""
