"""Messages: the registry of types, ids, the Entry and Frame codec, builders.

Contract: what a message is, independent of where it is stored; payloads are never decoded here
unless a reader asks. Layer: message, above rpc, below backends.
"""
