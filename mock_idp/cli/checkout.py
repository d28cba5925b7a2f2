"""Read the repository, ref and commit of a job from a git checkout."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

# `https://HOST/OWNER/REPO.git`, `ssh://…` and `git+ssh://…`, or `git@HOST:OWNER/REPO.git`; not a Windows drive.
_REMOTE: Final = re.compile(r"(?:[\w+]+://[^/]+/|[^/]{2,}:/?)([^/:]+/[^/]+?)(?:\.git)?/?")


def describe_checkout(folder: Path, wanted: Collection[str]) -> dict[str, str]:
    """Return the `wanted` names of `repository`, `ref` and `sha` with their values for a job at this folder's commit.

    Raises click.UsageError if the checkout does not have a wanted value.
    """
    # The commit comes first: in a folder without git, an error about the missing remote would hide the cause.
    find = {"sha": commit_of, "repository": _repository, "ref": _ref}
    return {name: find[name](folder) for name in find if name in wanted}


def commit_of(folder: Path) -> str:
    """Return the commit of a checkout. Raises click.UsageError."""
    sha = _git(folder, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if not sha:
        raise click.UsageError(
            f"{folder} is not a git checkout with a commit; give --sha and the other values as options"
        )
    return sha


def _repository(folder: Path) -> str:
    remotes = _git(folder, "remote").split()
    name = "origin" if "origin" in remotes or len(remotes) != 1 else remotes[0]
    url = _git(folder, "remote", "get-url", name)
    found = _REMOTE.fullmatch(url)
    if not found:
        # The message does not contain the URL, which may contain a password.
        problem = "has no URL of the form HOST/OWNER/REPO" if url else "does not exist"
        raise click.UsageError(f"the git remote {name} of {folder} {problem}; give --repository")
    return found[1]


def _ref(folder: Path) -> str:
    branch = _git(folder, "symbolic-ref", "--quiet", "HEAD")
    tag = "" if branch else _git(folder, "describe", "--tags", "--exact-match", "HEAD")
    if not (branch or tag):
        raise click.UsageError(f"the checkout in {folder} is not on a branch or tag; give --ref")
    return branch or f"refs/tags/{tag}"


def _git(folder: Path, *words: str) -> str:
    """Run git and return its output; empty if git fails."""
    try:
        done = subprocess.run(  # noqa: S603 (no shell; the arguments are ours)
            ["git", "-C", str(folder), *words],  # noqa: S607 (the user's git)
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise click.UsageError(f"--from-git: cannot start git: {error.strerror}") from error
    return done.stdout.strip() if done.returncode == 0 else ""
