# noqa: INP001 - a hook of the build, no package
"""The metadata that all distributions share, from the pyproject.toml of the repository's root."""

import tomllib
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class SharedMetadata(MetadataHookInterface):
    """Fills the fields that a distribution lists as `dynamic`, and adds the `classifiers` of the hook's own table."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Update `metadata`, the `project` table of the distribution. Raises KeyError for a field that is not shared."""
        shared = tomllib.loads((Path(self.root).parent / "pyproject.toml").read_text("utf-8"))["project"]
        metadata.update({field: shared[field] for field in metadata["dynamic"]})
        metadata["classifiers"] = [*metadata["classifiers"], *self.config["classifiers"]]
