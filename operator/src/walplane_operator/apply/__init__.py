"""Everything that talks to the API server and the backend's admin service; the only writes."""
