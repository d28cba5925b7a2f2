"""A step's interface to the runner: outputs, state, masks, log lines, annotations and the summary.

The formats come from `actions_toolkit.command` and `actions_toolkit.file_command`. `actions_toolkit.core` wraps
these two modules, but imports `requests` and supports only the process's own stdout and environment.
"""

import base64
import html
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TextIO
from urllib.parse import quote

from actions_toolkit.command import Command
from actions_toolkit.file_command import prepare_key_value_message

from sentryagent_actions.untrusted import one_line, without_legacy_commands

Row = tuple[str, ...]


class RunnerFileUnavailableError(Exception):
    """A file through which the runner receives outputs, state or the summary is missing or cannot be written."""


class Workflow:
    """One step's interface to its runner: commands on stdout, values in the files that the runner names."""

    def __init__(self, environ: Mapping[str, str], stdout: TextIO) -> None:
        self._environ = environ
        self._stdout = stdout

    def of(self, environ: Mapping[str, str]) -> "Workflow":
        """Return an interface to the same runner with another environment."""
        return Workflow(environ, self._stdout)

    def check_outputs(self) -> None:
        """Check that outputs can be set, and state saved if the runner supports it.

        Raises RunnerFileUnavailableError.
        """
        if not self._environ.get("GITHUB_OUTPUT"):
            # Without the file, the toolkit would fall back to `::set-output` and print the token.
            raise RunnerFileUnavailableError(
                "GITHUB_OUTPUT is not set: this program must run as a step of a workflow. On your own machine, run it with `mock-idp run`."
            )
        # Try to write the state before a token is issued: without state, nothing would revoke the token.
        self.save_state({})

    def mask(self, secret: str) -> None:
        """Hide `secret` and its URL-encoded and base64 forms in everything that the runner logs from now on."""
        encoded = secret.encode()
        # Without padding, one mask covers both the padded and the unpadded form.
        base64_forms = (
            form(encoded).decode().rstrip("=") for form in (base64.b64encode, base64.urlsafe_b64encode)
        )
        for form in dict.fromkeys((secret, quote(secret, safe=""), *base64_forms)):
            self._command("add-mask", form)

    def set_outputs(self, outputs: Mapping[str, str]) -> None:
        """Set outputs of the step. Raises RunnerFileUnavailableError."""
        self.check_outputs()
        self._append("GITHUB_OUTPUT", outputs)

    def save_state(self, state: Mapping[str, str]) -> bool:
        """Save values for the post step; return false if the runner keeps no state. Raises RunnerFileUnavailableError."""
        if not self._environ.get("GITHUB_STATE"):
            return False
        self._append("GITHUB_STATE", state)
        return True

    def state(self, name: str) -> str:
        """Return a value that the main step saved, or the empty string."""
        return self._environ.get(f"STATE_{name}", "")

    def info(self, message: str) -> None:
        """Write one line to the log."""
        line = without_legacy_commands(one_line(message, 1000))
        # A log line must not start with a command, because its text may be untrusted; the runner ignores leading spaces.
        self._write(line.replace("::", ": :", 1) if line.startswith("::") else line)

    def debug(self, message: str) -> None:
        """Write one line to the log if step debug logging is on (RUNNER_DEBUG is 1)."""
        if self._environ.get("RUNNER_DEBUG") == "1":
            self._command("debug", without_legacy_commands(one_line(message, 1000)))

    def notice(self, title: str, message: str) -> None:
        """Annotate the run with a notice."""
        self._annotate("notice", title, message)

    def warning(self, title: str, message: str) -> None:
        """Annotate the run with a problem that does not fail the step."""
        self._annotate("warning", title, message)

    def error(self, title: str, message: str) -> None:
        """Annotate the run with the reason for a failure; the exit code is what fails the step."""
        self._annotate("error", title, message)

    def summarize(self, title: str, rows: Iterable[Row], code: str = "", help_url: str = "") -> None:
        """Add a table, a block of code and a link to the step's summary, unless the runner has none or `summary` is false.

        The text is HTML without an empty line inside, in which GitHub parses no Markdown, so escaping HTML is enough.
        """
        is_wanted = self._environ.get("INPUT_SUMMARY", "").strip().lower() != "false"
        if not (is_wanted and self._environ.get("GITHUB_STEP_SUMMARY")):
            return
        head = "<tr><th>Field</th><th>Value</th></tr>\n"
        table = "".join(f"<tr>{''.join(f'<td>{_cell(cell)}</td>' for cell in row)}</tr>\n" for row in rows)
        block = f"<pre><code>{html.escape(_wrapped(code))}</code></pre>\n" if code else ""
        link = f'<p><a href="{html.escape(help_url)}">What this code means</a></p>\n' if help_url else ""
        text = f"<h3>{_cell(title)}</h3>\n<table>\n{head}{table}</table>\n{block}{link}\n"
        try:
            self._append_text("GITHUB_STEP_SUMMARY", text)
        except RunnerFileUnavailableError as error:
            # The log and the outputs have the same content, so a missing summary must not fail the step.
            self.info(str(error))

    def _annotate(self, level: str, title: str, message: str) -> None:
        self._command(level, without_legacy_commands(message), title=without_legacy_commands(title))

    def _command(self, name: str, message: str, **properties: str) -> None:
        self._write(str(Command(name, properties, message)))

    def _write(self, line: str) -> None:
        self._stdout.write(f"{line}\n")
        # A mask must reach the runner before the text that it hides.
        self._stdout.flush()

    def _append(self, variable: str, values: Mapping[str, str]) -> None:
        text = "".join(f"{prepare_key_value_message(name, value)}\n" for name, value in values.items())
        self._append_text(variable, text)

    def _append_text(self, variable: str, text: str) -> None:
        try:
            with Path(self._environ[variable]).open("a", encoding="utf-8", newline="") as file:
                file.write(text)
        except OSError as error:
            raise RunnerFileUnavailableError(
                f"The file that {variable} names cannot be written ({error.strerror}). "
                "A container must run as root, as it does on GitHub's runner."
            ) from error


def _cell(text: str) -> str:
    escaped = html.escape(without_legacy_commands(one_line(text, 600)))
    # GitHub parses no Markdown here, so backticks become HTML.
    return re.sub("`([^`]+)`", r"<code>\1</code>", escaped)


def _wrapped(command: str) -> str:
    """Return a shell command with one option per line, so that it fits into the summary's code block."""
    if not command.startswith("curl "):
        return command
    # At most three breaks: the policy follows them and must stay unchanged.
    return re.sub(r" (?=-H |--data )", " \\\n  ", command, count=3)
