"""Scenario text files: what happens to a log, and below it what its readers see."""
