"""Protocols: where a stream, a codec and a store meet."""
