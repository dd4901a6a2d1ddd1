"""A Valkey or Redis Cluster for asyncio: the same client, whose tasks share one connection to each node.

What needs no input or output is shared with the threaded side (cluster/, one folder up): slots, the keys of commands,
the parts of commands, what follows an error. `nodes.py` keeps the connections and knows who has what, `router.py` gets
a command to the right node, `client.py` and `pipeline.py` are the faces.

No task lives longer than the call that made it, and a task that is cancelled disturbs no other.
"""
