"""What development needs around walplane; the commands are in docs/components/devservices.md.

A real Pulsar, a kind cluster (`kind`) and its `images`, other systems' servers for benchmarks
(`peers`), generated code (`protos`), the test runs (`test`, `e2e`, `sim`, `chaos`), and the demo.
"""
