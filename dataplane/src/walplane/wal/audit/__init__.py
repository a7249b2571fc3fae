"""Checks of a log in one pass, in log order and bounded memory."""
