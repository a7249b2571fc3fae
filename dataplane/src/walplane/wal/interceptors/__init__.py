"""What an append passes through on its way to the backend, outermost first."""
