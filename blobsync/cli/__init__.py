"""The command line: every command parses, calls `App` and shows what came of it.

Invariants: a failure is one line on stderr (or one JSON object), never a stack trace; text that
came from a peer reaches a terminal only escaped; nothing heavy is imported before a command runs.
"""

from blobsync.cli.program import main

__all__ = ["main"]
