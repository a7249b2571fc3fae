"""Typed spec, status, conditions, Leases and names; no I/O. Lowest layer of the operator."""
