"""Runs the simulation (`walplane.testkit.sim`) over many seeds, and its mutations."""
