"""A real Kubernetes by kind, for `make e2e` and for trying things out.

Contract: `KindCluster` is one cluster by name, made and deleted by idempotent calls; `Kubectl` is
what a user types; `faults` hurts what runs in it. Missing tools are named with the way to get them.
Command line: `python -m devservices.kind up|down|load`.
"""

from devservices.kind.cluster import KindCluster, ToolMissingError
from devservices.kind.kubectl import Kubectl, KubectlError

__all__ = ["KindCluster", "Kubectl", "KubectlError", "ToolMissingError"]
