"""The StreamingCoord: timestamp oracle, catalog, channel assignment, discovery."""
