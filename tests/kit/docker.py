"""Docker's command line."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from kit.processes import output_of

CLASSIC = os.environ | {"DOCKER_BUILDKIT": "0"}
"""An environment that selects Docker's classic builder, which act and older engines use."""


def docker(*arguments: object, **options: Any) -> str:
    """Run a Docker command that must succeed and return its output."""
    return output_of("docker", *arguments, **options).strip()


@contextmanager
def new_tag(name: str) -> Iterator[str]:
    """A tag for an image that the body of the `with` builds; the image is removed afterwards."""
    tag = f"{name}:{uuid4().hex}"
    yield tag
    docker("rmi", "-f", tag)
