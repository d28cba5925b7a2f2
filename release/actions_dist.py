# noqa: INP001 - a script of the release, no package
"""Write the repositories sentryagent/issue-token and sentryagent/register-agent: one self-contained folder each.

The build context of a Docker action on GitHub is the folder of its Dockerfile, so a repository of its own needs a copy
of everything that the Dockerfile copies. Another run replaces the previous output.
"""

import argparse
import posixpath
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ACTIONS = ("issue-token", "register-agent")
BESIDE_THE_IMAGE = ("Dockerfile", ".dockerignore", "LICENSE")
IMAGE_IN_PLACE = re.compile(r"^  image: (?:\.\./)?Dockerfile\b.*$", re.MULTILINE)
PUBLISHED_IMAGE = re.compile(r"docker://[a-z0-9][a-z0-9./:_-]*@sha256:[0-9a-f]{64}")


class NotPublishableError(Exception):
    """The sources do not have the form that this script needs; the message names the file and the problem."""


def main() -> None:
    """Write every action; exits with 2 and one line on stderr if that is impossible."""
    options = _options()
    try:
        for action in ACTIONS:
            folder = options.to / action
            write(action, folder, options.image or "Dockerfile")
            sys.stdout.write(f"{folder}: ready to push to sentryagent/{action}\n")
    except (NotPublishableError, OSError) as error:
        sys.stderr.write(f"actions_dist: {error}\n")
        sys.exit(2)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Write the repositories of the actions.")
    parser.add_argument("--to", type=Path, default=Path("dist", "actions"), help="[default: %(default)s]")
    parser.add_argument(
        "--image",
        type=published_image,
        metavar="docker://NAME@sha256:DIGEST",
        help="run this image instead of building the Dockerfile; a tag is not accepted, because it can be moved",
    )
    return parser.parse_args()


def published_image(value: str) -> str:
    """Check that an image is named by its digest, so that it cannot be replaced. Raises ArgumentTypeError."""
    if not PUBLISHED_IMAGE.fullmatch(value):
        raise argparse.ArgumentTypeError(
            f"{value!r} must be docker://NAME@sha256:DIGEST; use the digest that the push of the image printed"
        )
    return value


def write(action: str, folder: Path, image: str) -> None:
    """Write one action's repository with `image` as its `runs.image`. Raises NotPublishableError, OSError."""
    metadata = with_image((ROOT / action / "action.yml").read_text("utf-8"), f"{action}/action.yml", image)
    manual = with_absolute_links((ROOT / action / "README.md").read_text("utf-8"), action, _home())
    copies = (*BESIDE_THE_IMAGE, *_copied_by_the_dockerfile())
    without_docker = sorted((ROOT / action / "host").rglob("action.yml"))
    shutil.rmtree(folder, ignore_errors=True)
    for name in copies:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for source in without_docker:
        published = folder / source.relative_to(ROOT / action)
        published.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, published)
    (folder / "action.yml").write_text(metadata, "utf-8")
    (folder / "README.md").write_text(manual, "utf-8")


def _copied_by_the_dockerfile() -> Iterator[str]:
    """Yield the files of the build context, as read from the Dockerfile, so that nothing is listed twice."""
    sources = re.findall(r"^COPY (\S+) \S+$", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    for source in sources:
        found = sorted(ROOT.glob(source))
        if not found:
            raise NotPublishableError(f"the Dockerfile copies {source}, which does not exist")
        yield from (str(path.relative_to(ROOT)) for path in found)


def with_image(metadata: str, path: str, image: str) -> str:
    """Return an action.yml that runs `image`, with all other lines unchanged. Raises NotPublishableError."""
    edited, lines = IMAGE_IN_PLACE.subn(f"  image: {image}", metadata)
    if lines != 1:
        raise NotPublishableError(f"{path} has {lines} lines with `image: …Dockerfile` instead of one")
    return edited


def with_absolute_links(manual: str, action: str, home: str) -> str:
    """Return a manual whose links into the toolkit also work from another repository."""

    def absolute(link: re.Match[str]) -> str:
        path, hash_sign, heading = link[1].partition("#")
        target = posixpath.normpath(posixpath.join(action, path))
        return f"]({home}/blob/main/{target}{hash_sign}{heading})"

    return re.sub(r"\]\((?!https?:|#)([^)\s]+)\)", absolute, manual)


def _home() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    home: str = project["urls"]["Source"]
    return home


if __name__ == "__main__":
    main()
