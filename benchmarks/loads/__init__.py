"""Programs that put one side under load and print one JSON object of figures on stdout.

Each runs in a process of its own, like a user's program: `python -m benchmarks.loads.NAME`.
"""
