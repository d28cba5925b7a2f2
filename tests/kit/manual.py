"""The manuals as readers use them: their code blocks, a terminal to paste them into, and the commands that they name."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import dropwhile, groupby, pairwise
from pathlib import Path
from typing import Any, Self

from kit.processes import ROOT, tracked_files

SHELL = ("sh", "bash", "console")
"""The languages of code blocks that a reader pastes into a shell."""
_PATIENCE_SECONDS = 120
_READY = "the shell is ready for the next block"
_HEADING = re.compile(r"#+ (?P<heading>.*)")
_FENCE = re.compile(r"(?P<indent> *)```(?P<language>\w*)")


@dataclass(frozen=True)
class Block:
    """A fenced code block: document, heading above it, number under that heading, and text without indentation."""

    document: str
    heading: str
    number: int
    language: str
    text: str

    @property
    def name(self) -> str:
        """The block's name: `docs/audit.md#A cut end`, with ` 2` added for the second block under a heading."""
        number = f" {self.number}" if self.number > 1 else ""
        return f"{self.document}#{self.heading}{number}"


def offline_python(programs: Path) -> dict[str, str]:
    """Variables that make `python3` this Python, whose packages a virtual environment then uses instead of an index.

    `programs` is an empty folder, which comes first on PATH.
    """
    (programs / "python3").symlink_to(Path(sys.executable).resolve())
    offline = dict.fromkeys(("PIP_NO_INDEX", "PIP_NO_DEPS", "PIP_IGNORE_INSTALLED"), "1")
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return offline | {"PATH": path, "PYTHONPATH": sysconfig.get_path("purelib")}


def documents() -> list[str]:
    """The names of the repository's documents."""
    return tracked_files("*.md")


def blocks(document: str, *languages: str) -> list[Block]:
    """The code blocks of a document in these languages, in order."""
    return [it for it in _fenced(document) if it.language in languages]


def _fenced(document: str) -> Iterator[Block]:
    heading, numbers = "", dict[str, int]()
    lines = iter((ROOT / document).read_text().splitlines(keepends=True))
    for line in lines:
        if found := _HEADING.match(line):
            heading = found["heading"].strip()
        elif fence := _FENCE.match(line):
            end = f"{fence['indent']}```\n"
            content = "".join(it.removeprefix(fence["indent"]) for it in iter(lambda: next(lines), end))
            numbers[heading] = numbers.get(heading, 0) + (fence["language"] in SHELL)
            yield Block(document, heading, numbers[heading], fence["language"], content)


class Terminal:
    """A plain bash that runs pasted text and exits at the first command that fails.

    `tell` receives all output; `here` replaces the examples' addresses with those of this test.
    """

    def __init__(
        self,
        folder: Path,
        environ: Mapping[str, str],
        tell: Callable[[str], None],
        here: Callable[[str], str] = str,
    ) -> None:
        self.folder, self._tell, self._here = folder, tell, here
        self._bash = subprocess.Popen(
            ["bash", "-e"],
            cwd=folder,
            env=environ,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._limit = threading.Timer(_PATIENCE_SECONDS, self._kill)

    def __enter__(self) -> Self:
        self._limit.start()
        self.paste("trap 'kill 0' EXIT")
        return self

    def __exit__(self, *_: object) -> None:
        self._limit.cancel()
        self._kill()
        self._bash.communicate()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)

    def paste(self, text: str) -> str:
        """Run some lines in the shell and return their output."""
        pipes: Any = self._bash
        pipes.stdin.write(f"{self._here(text)}\necho; echo {_READY}\n")
        pipes.stdin.flush()
        printed, line = "", ""
        for line in pipes.stdout:
            if line.strip() == _READY:
                break
            printed += line
        self._tell(printed)
        assert line.strip() == _READY, f"{text}\n{printed}"
        return printed


_PROGRAMS = ("sentryagent-idp", "mock-idp", "sentryagent-actions")
_NAMED = re.compile(rf"(?:{'|'.join(_PROGRAMS)}) .+")
_BLOCK = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`]+)`")
_SUBSTITUTION = re.compile(r"\$\(([^()]*)\)")
_BEFORE_A_COMMAND = re.compile(r"[A-Za-z_]\w*=.*|\{|do|then|if|exec|pipx|run|--spec")
_ALTERNATIVES = re.compile(r"[a-z-]+(?:\\?\|[a-z-]+)+")


def named_in_text(text: str) -> Iterator[list[str]]:
    """The words of each of our commands in backticks; `keys list|rotate` is two commands, and options in brackets count."""
    for span in map(" ".join, map(str.split, _SPAN.findall(_BLOCK.sub("", text)))):
        if _NAMED.fullmatch(span):
            words = re.sub(r"\[options of [a-z ]+\]|[\[\]]|&$", " ", span).split()
            # After an option, `…` stands for its value; elsewhere it means "and so on".
            pairs = pairwise(["", *words])
            yield from _alternatives([it for before, it in pairs if it != "…" or before.startswith("--")])
        else:
            yield from named_in_shell(span)


def _alternatives(words: list[str]) -> Iterator[list[str]]:
    for place, word in enumerate(words):
        if _ALTERNATIVES.fullmatch(word):
            choices = word.replace("\\", "").split("|")
            yield from ([*words[:place], choice, *words[place + 1 :]] for choice in choices)
            return
    yield words


def named_in_shell(script: str) -> Iterator[list[str]]:
    """The words of each of our commands in a shell script, with or without a path to the program."""
    for line in re.sub(r"\\\n", " ", script).splitlines():
        if any(it in line for it in _PROGRAMS) and not line.lstrip().startswith("#"):
            for part in (*_SUBSTITUTION.findall(line), _SUBSTITUTION.sub("X", line)):
                yield from filter(None, map(_command, _simple_commands(part)))


def _simple_commands(line: str) -> Iterator[list[str]]:
    reader = shlex.shlex(line, posix=True, punctuation_chars=True)
    reader.whitespace_split = True
    return (
        [*words]
        for is_between, words in groupby(reader, lambda it: not set(it) <= set("();<>|&"))
        if is_between
    )


def _command(words: list[str]) -> list[str]:
    command = [*dropwhile(_BEFORE_A_COMMAND.fullmatch, words)]
    if words[:3] == ["pipx", "run", "--spec"]:
        command = words[4:]
    name = Path(command[0]).name if command else ""
    return [name, *command[1:]] if name in _PROGRAMS else []
