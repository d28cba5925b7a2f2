# noqa: INP001 - a script of the release, no package
"""Print the release tag of this checkout, such as v1.2.3, if it is ready to be released."""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Print the tag; exits with 2 and one line on stderr if the changelog lacks the version."""
    version: str = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    heading = rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$"
    if not re.search(heading, (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE):
        sys.stderr.write(
            f"version: CHANGELOG.md has no heading `## [{version}] - YYYY-MM-DD`; add it first\n"
        )
        sys.exit(2)
    sys.stdout.write(f"v{version}\n")


if __name__ == "__main__":
    main()
