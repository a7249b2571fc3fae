"""Ratios: walplane beside a reference, on the same machine, in interleaved rounds of one run.

`python -m benchmarks [ROW...] --rounds N --out DIR` measures; a figure is never a test. Who may
import whom:
`__main__ > rows > growth, peers, reading, recovery > sides > system > model`;
`__main__ > chart > report > harness > model`; `__main__ > versions`.
`loads` are programs of their own, started by `system`, and import nothing of the rest; `system`
measures processor time as they do, by `loads.common`.
"""
