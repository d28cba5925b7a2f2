"""The parts of a Dockerfile that the process engine needs: ENTRYPOINT, CMD, ENV, and the files that COPY adds."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from mock_idp.runner.errors import ActionError

if TYPE_CHECKING:
    from collections.abc import Mapping

_REFERENCE: Final = re.compile(r"\$\{?(\w+)\}?")
_INSTRUCTION: Final = re.compile(r"\s*([A-Za-z]+)\s+(.*)", re.DOTALL)


@dataclass(frozen=True)
class Copy:
    """One source of a COPY line: a path in the build context, and its path in the image."""

    source: Path
    target: PurePosixPath


@dataclass(frozen=True)
class Dockerfile:
    """The last stage's ENTRYPOINT, CMD and ENV, and the copies of all stages. The context is the file's folder."""

    path: Path
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    copies: tuple[Copy, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    def find(self, word: str) -> Path | None:
        """Return the file in the build context that is `word` in the image: an absolute path, or a bare name."""
        wanted = PurePosixPath(word)
        if not wanted.is_absolute() and len(wanted.parts) > 1:
            return None
        candidates = (_match(copy, wanted) for copy in self.copies)
        return next((path for path in candidates if path and path.is_file()), None)


def _match(copy: Copy, wanted: PurePosixPath) -> Path | None:
    if not wanted.is_absolute():
        return copy.source if copy.target.name == wanted.name else copy.source / wanted.name
    if copy.target == wanted:
        return copy.source
    return copy.source / wanted.relative_to(copy.target) if wanted.is_relative_to(copy.target) else None


def read_dockerfile(path: Path) -> Dockerfile:
    """Read a Dockerfile. Raises ActionError for a shell-form ENTRYPOINT or CMD: the shell loses inputs with a hyphen."""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    folder = PurePosixPath("/")
    copies: list[Copy] = []
    environment: dict[str, str] = {}
    for name, rest in _instructions(path.read_text("utf-8")):
        if name == "FROM":
            entrypoint, command, folder, environment = (), (), PurePosixPath("/"), {}
        elif name == "WORKDIR":
            folder /= rest
        elif name == "ENTRYPOINT":
            entrypoint, command = _exec_form(path, name, rest), ()
        elif name == "CMD":
            command = _exec_form(path, name, rest)
        elif name == "ENV":
            environment |= _variables(rest, environment)
        elif name in {"COPY", "ADD"}:
            copies += _copies(path.parent, folder, rest)
    return Dockerfile(path, entrypoint, command, tuple(copies), environment)


def _variables(rest: str, known: Mapping[str, str]) -> dict[str, str]:
    """Return the pairs of one ENV line, `NAME=VALUE …` or the older `NAME VALUE`; `known` are the earlier variables."""
    name, _, value = rest.partition(" ")
    pairs = (
        [word.partition("=") for word in shlex.split(rest)] if "=" in name else [(name, "=", value.strip())]
    )
    return {name: _REFERENCE.sub(lambda it: known.get(it[1], ""), value) for name, _, value in pairs}


def _instructions(text: str) -> list[tuple[str, str]]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\[ \t]*\n", " ", "\n".join(lines))
    found = (_INSTRUCTION.fullmatch(line) for line in joined.splitlines())
    return [(match[1].upper(), match[2].strip()) for match in found if match]


def _exec_form(path: Path, name: str, rest: str) -> tuple[str, ...]:
    try:
        words = json.loads(rest)
    except ValueError:
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ActionError(
            f'{path}: {name} must have the exec form, such as ["python", "/main.py"]: the shell of the other form '
            "drops variables with a hyphen in their name, so INPUT_API-URL would be lost."
        )
    return tuple(words)


def _copies(context: Path, folder: PurePosixPath, rest: str) -> list[Copy]:
    flags, words = _split_copy(rest)
    if len(words) < 2 or any(flag.startswith("--from") for flag in flags):
        return []
    *sources, target = words
    into = folder / target
    paths = [path for source in sources for path in _sources(context, source)]
    is_file_name = len(paths) == 1 and not target.endswith(("/", "."))
    return [Copy(path, into if path.is_dir() or is_file_name else into / path.name) for path in paths]


def _sources(context: Path, source: str) -> list[Path]:
    if re.search(r"[*?\[]", source):
        return sorted(context.glob(source.strip("/")))
    return [context / source.strip("/")]


def _split_copy(rest: str) -> tuple[list[str], list[str]]:
    head = re.match(r"(?:--\S+\s+)*", rest)
    flags, words = (rest[: head.end()], rest[head.end() :]) if head else ("", rest)
    return flags.split(), json.loads(words) if words.startswith("[") else shlex.split(words)
