"""The wire: generated gRPC code in `v1` and the one error vocabulary in `errors`.

Layer: below `message`; knows nothing of logs or channels.
"""
