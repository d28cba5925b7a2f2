"""Node.js programs with their npm packages."""

import shutil
from pathlib import Path

from kit.processes import ROOT, output_of

EXAMPLES = ROOT / "examples" / "verify"


def beside_jose(program: Path, folder: Path) -> Path:
    """Copy a program into a folder with npm's jose, in the version to which the Node example is locked."""
    for name in ("package.json", "package-lock.json"):
        shutil.copy(EXAMPLES / name, folder)
    output_of("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", cwd=folder)
    return Path(shutil.copy(program, folder))
