"""Ticks of one PChannel: reserve, acknowledgement order, watermark, last confirmed."""
