"""The StreamingClient: discovery, producers, readers, and a thin blocking facade."""
