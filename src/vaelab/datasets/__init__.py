"""Images: sources, decoding, caching, splits."""
