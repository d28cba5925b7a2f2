"""What a git checkout says about the job that would run from it: repository, ref, commit."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

# `https://HOST/OWNER/REPO.git`, `ssh://…` and `git+ssh://…`, or `git@HOST:OWNER/REPO.git`; not a drive of Windows.
_REMOTE: Final = re.compile(r"(?:[\w+]+://[^/]+/|[^/]{2,}:/?)([^/:]+/[^/]+?)(?:\.git)?/?")


def describe_checkout(folder: Path, wanted: Collection[str]) -> dict[str, str]:
    """What is wanted of `repository`, `ref` and `sha` for a job at the commit of this folder.

    Raises click.UsageError where the checkout does not tell.
    """
    # The commit first: a folder without git has no remote either, which would hide the cause.
    find = {"sha": commit_of, "repository": _repository, "ref": _ref}
    return {name: find[name](folder) for name in find if name in wanted}


def commit_of(folder: Path) -> str:
    """The commit of a checkout. Raises click.UsageError."""
    sha = _git(folder, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if not sha:
        raise click.UsageError(
            f"{folder} is not a git checkout with a commit; give --sha and the rest as options"
        )
    return sha


def _repository(folder: Path) -> str:
    remotes = _git(folder, "remote").split()
    name = "origin" if "origin" in remotes or len(remotes) != 1 else remotes[0]
    url = _git(folder, "remote", "get-url", name)
    found = _REMOTE.fullmatch(url)
    if not found:
        # The URL is not repeated: there may be a password in it.
        told = "has no URL of the form HOST/OWNER/REPO" if url else "does not exist"
        raise click.UsageError(f"the git remote {name} of {folder} {told}; give --repository")
    return found[1]


def _ref(folder: Path) -> str:
    branch = _git(folder, "symbolic-ref", "--quiet", "HEAD")
    tag = "" if branch else _git(folder, "describe", "--tags", "--exact-match", "HEAD")
    if not (branch or tag):
        raise click.UsageError(f"the checkout in {folder} is on no branch or tag; give --ref")
    return branch or f"refs/tags/{tag}"


def _git(folder: Path, *words: str) -> str:
    """What git prints; empty where it fails."""
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
