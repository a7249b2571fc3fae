"""What `make e2e` stands on: the run itself, and what its tests do in the cluster.

Contract: `python -m devservices.e2e [--keep] [pytest arguments]` makes a kind cluster, builds and
loads the images, runs `e2e/`, and deletes the cluster. Tests use `ClientPod` and `PodLoad` to work
as a program in the cluster does.
"""
