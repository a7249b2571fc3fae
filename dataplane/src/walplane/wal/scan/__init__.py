"""Reading a log: catch-up from the backend, tailing from memory, in tick order."""
