"""What a log holds of segments, brought to object storage, so that the log can be cut off."""
