"""Container images: walplane's own, and those that it stands on where no registry can be reached.

Contract: a machine with a container registry and a package index needs only `walplane`; `base` and
`pulsar` make stand-ins for upstream's images from packages of Debian and Maven, for machines that
have none. What is there is not built again. Missing tools are named with the way to get them.
"""
