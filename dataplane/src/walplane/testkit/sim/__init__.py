"""A deterministic simulation that runs the real code in virtual time. Layer: testkit.

Contract: one seed is one run, the same on every machine and at every repetition. Everything between
a user's call and the backend's interface is the product's own code, its gRPC services included;
what is simulated is what lies outside: time, threads of control, the network under gRPC, the
backend, the store of Leases. docs/adr/011-simulation.md says why it is built so.
"""
