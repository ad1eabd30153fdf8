"""The user's folders: which names may appear in them, and how files get there."""
