"""A Valkey or Redis Cluster, behind the same client: which node a command goes to, and what follows when that changes.

`slots.py` knows which node has which keys, `keys.py` which words of a command are keys, `split.py` what becomes of a
command whose keys are on several nodes, `redirects.py` what to do with an error: all without input or output.
`nodes.py` keeps a pool of connections for each node, `router.py` gets a command to the right one, `client.py` and
`pipeline.py` are the faces.

Every connection is one of ours, with its rules: a deadline for each call, nobody reads another's reply, nothing that
may have been applied is sent again.
"""
