"""Programs for Node.js with what they need of npm."""

import shutil
from pathlib import Path

from kit.processes import ROOT, output_of

EXAMPLES = ROOT / "examples" / "verify"


def beside_jose(program: Path, folder: Path) -> Path:
    """A copy of a program in a folder that has npm's jose, in the version that the example for Node is locked to."""
    for name in ("package.json", "package-lock.json"):
        shutil.copy(EXAMPLES / name, folder)
    output_of("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", cwd=folder)
    return Path(shutil.copy(program, folder))
