"""What a user waits for: adding and fetching, by the real programs as separate processes."""
