"""`python -m blobsync`: the command line."""

from blobsync.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
