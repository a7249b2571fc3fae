"""The walplane command; wires the parts together for each way to run."""
