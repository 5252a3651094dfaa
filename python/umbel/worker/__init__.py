"""The process that hosts a user's ClientApp for a C++ SuperNode: docs/worker-protocol.md.

Its sources travel inside our binary and run under the user's own Python, so they need nothing but
the standard library and flwr, 1.23 or later, and import each other relatively: the folder works
under any name. One thread; forking stays safe.
"""
