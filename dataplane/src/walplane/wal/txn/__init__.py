"""Transactions of one PChannel: what the log says of them, and the sessions of those alive."""
