"""The Docker engine's command line."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from kit.processes import output_of

CLASSIC = os.environ | {"DOCKER_BUILDKIT": "0"}
"""The environment in which images are built by the classic builder, as act and older engines have it."""


def docker(*arguments: object, **options: Any) -> str:
    """What the engine says to a command that must succeed."""
    return output_of("docker", *arguments, **options).strip()


@contextmanager
def new_tag(name: str) -> Iterator[str]:
    """A tag for an image that the body of the `with` builds; the image goes at its end."""
    tag = f"{name}:{uuid4().hex}"
    yield tag
    docker("rmi", "-f", tag)
