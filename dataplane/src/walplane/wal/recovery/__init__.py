"""What opening a WAL recovers and what it saves, so that it never replays all history."""
