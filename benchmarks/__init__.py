"""Ratios: walplane beside a reference, on the same machine, in interleaved rounds of one run.

`python -m benchmarks [ROW...] --rounds N --out DIR` measures; a figure is never a test. Who may
import whom:
`__main__ > rows > reading, peers, growth > sides > system, harness, chart > report > model`;
`loads` are programs of their own, started by `system`, and import nothing of the rest.
"""
