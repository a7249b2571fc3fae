"""One PChannel's log: open protocol, append chain, ticks, scanners, recovery, meta topic.

Knows backends and messages; knows no node, coordinator or client: the timestamp oracle and the
authority on terms are passed in as protocols.
"""
