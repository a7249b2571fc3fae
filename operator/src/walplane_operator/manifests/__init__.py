"""From a spec to manifests; pure: no I/O, no clock, the same input gives the same output."""
