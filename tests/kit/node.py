"""Programs for Node.js with what they need of npm."""

import shutil
from pathlib import Path

from kit.processes import output_of


def beside_jose(program: Path, folder: Path) -> Path:
    """A copy of a program in a folder that has npm's jose."""
    install = ("npm", "install", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts", "jose@6")
    output_of(*install, cwd=folder)
    return Path(shutil.copy(program, folder))
