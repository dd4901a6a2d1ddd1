"""What people build on a store, each written once for clients that block and clients that are awaited.

A recipe is a generator: it yields what is to be done next (steps.py) and is sent what came of it. It neither blocks
nor awaits, so that both kinds of client run the same one, and a test can be the server.
"""
