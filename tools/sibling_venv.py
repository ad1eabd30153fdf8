"""Make a virtual environment that sees everything in `.venv`, but for what is asked otherwise.

`sibling_venv.py FOLDER [--without pyiroh] [PACKAGE==VERSION ...]`: a second environment for tests
without building or fetching everything twice. Only the packages that are named are installed.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    """The command line; run by the Python of `.venv`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--without", action="append", default=[], metavar="NAME")
    parser.add_argument("packages", nargs="*", metavar="PACKAGE==VERSION")
    options = parser.parse_args()
    without: list[str] = options.without
    folder: Path = options.folder
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=bool(options.packages))
    ours = Path(sysconfig.get_path("purelib"))
    theirs = folder / ours.relative_to(sys.prefix)
    # Folders of packages that are used from their sources; such files are not read in a folder
    # that another one names.
    paths = [str(ours)]
    for link in sorted(ours.glob("*.pth")):
        name = link.stem.removeprefix("_editable_impl_")
        lines = [line for line in link.read_text().splitlines() if Path(line).is_dir()]
        if name not in without:
            paths += lines
    (theirs / "siblings.pth").write_text("\n".join(paths) + "\n")
    if options.packages:
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--ignore-installed", *options.packages], check=True)


if __name__ == "__main__":
    main()
