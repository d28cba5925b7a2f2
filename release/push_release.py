# noqa: INP001 - a script of the release, no package
"""Commit a release in a clone, tag it, move the major tag, and push all of it or nothing.

A tag such as v1.2.3 is never moved: pushing an existing release with the same files succeeds, with other files it is
refused. A release workflow that failed half-way can therefore be run again.
"""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

AUTHOR = ("-c", "user.name=SentryAgent release", "-c", "user.email=release@sentryagent.example")


class NotPushedError(Exception):
    """The release cannot be pushed; the message says why."""


def main() -> None:
    """Push the release; exits with 2 and one line on stderr if that is impossible."""
    options = _options()
    try:
        pushed = push(options.clone, options.version, options.content)
    except NotPushedError as error:
        sys.stderr.write(f"push_release: {error}\n")
        sys.exit(2)
    sys.stdout.write(f"{options.version}: {'pushed' if pushed else 'already published'}\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Commit, tag and push a release.")
    parser.add_argument("clone", type=Path, help="a clone whose `origin` is the repository")
    parser.add_argument("version", type=_version, help="v1.2.3")
    parser.add_argument(
        "--content", type=Path, help="folder that replaces all files, and is also pushed to main"
    )
    return parser.parse_args()


def _version(value: str) -> str:
    if not re.fullmatch(r"v(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", value):
        raise argparse.ArgumentTypeError(f"{value!r} must have the form v1.2.3")
    return value


def push(clone: Path, version: str, content: Path | None) -> bool:
    """Push the release; return False if it already exists. Raises NotPushedError."""
    if content is not None:
        _replace(clone, content)
    git = _Git(clone)
    git("add", "--all")
    if _released(git, version):
        return False
    # A mirror's files may not have changed since the last release; the new version gets its own commit all the same.
    git(*AUTHOR, "commit", "--quiet", "--allow-empty", "--message", version)
    git("tag", version)
    git("tag", "--force", version.partition(".")[0])
    branch = () if content is None else ("HEAD:refs/heads/main",)
    major = f"refs/tags/{version.partition('.')[0]}"
    git("push", "--quiet", "--atomic", "origin", *branch, f"refs/tags/{version}", f"+{major}")
    return True


def _replace(clone: Path, content: Path) -> None:
    for entry in clone.iterdir():
        if entry.name == ".git":
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    shutil.copytree(content, clone, dirs_exist_ok=True)


def _released(git: "_Git", version: str) -> bool:
    if not git("ls-remote", "--tags", "origin", f"refs/tags/{version}"):
        return False
    git("fetch", "--quiet", "--no-tags", "origin", f"refs/tags/{version}")
    if git("write-tree") != git("rev-parse", "FETCH_HEAD^{tree}"):
        raise NotPushedError(
            f"{version} is already published with different files; raise the version in pyproject.toml"
        )
    return True


class _Git:
    """Runs git in one clone."""

    def __init__(self, clone: Path) -> None:
        self._clone = clone

    def __call__(self, *arguments: str) -> str:
        """Return what git printed. Raises NotPushedError."""
        command = ("git", "-C", str(self._clone), *arguments)
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - git, no shell
        if done.returncode:
            words = [word for word in arguments if not word.startswith("-")]
            raise NotPushedError(f"git {words[0]} failed: {done.stderr.strip()}")
        return done.stdout.strip()


if __name__ == "__main__":
    main()
