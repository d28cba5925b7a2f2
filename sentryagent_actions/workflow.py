"""The runner's side of a step: inputs, outputs, state, masks, annotations and the summary.

The formats are those of `actions_toolkit.command` and `actions_toolkit.file_command`. `actions_toolkit.core`
wraps the same two modules, but imports `requests` and knows only the process's own stdout and environment.
"""

import base64
import html
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TextIO
from urllib.parse import quote

from actions_toolkit.command import Command
from actions_toolkit.file_command import prepare_key_value_message

from sentryagent_actions.untrusted import one_line, without_legacy_commands

Row = tuple[str, ...]


class RunnerFileUnavailableError(Exception):
    """A file through which the runner takes outputs is missing or cannot be written."""


class Workflow:
    """One step's way to its runner: commands on stdout, values in the files that the runner names."""

    def __init__(self, environ: Mapping[str, str], stdout: TextIO) -> None:
        self._environ = environ
        self._stdout = stdout

    def check_outputs(self) -> None:
        """See that there is a place for outputs, and for state where the runner takes it.

        Raises RunnerFileUnavailableError.
        """
        if not self._environ.get("GITHUB_OUTPUT"):
            # Without the file, the toolkit would fall back to `::set-output` and print the token.
            raise RunnerFileUnavailableError(
                "GITHUB_OUTPUT is not set: this program is a step of a workflow; on a laptop, start it with `mock-idp run`."
            )
        # Before any token is issued: without state, nothing would revoke it.
        self.save_state({})

    def mask(self, secret: str) -> None:
        """Hide `secret` and its URL-encoded and base64 forms in everything that the runner logs from now on."""
        encoded = secret.encode()
        # Without padding: the same mask then covers the padded and the unpadded spelling.
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
        """Keep values for the post step; false where the runner takes no state. Raises RunnerFileUnavailableError."""
        if not self._environ.get("GITHUB_STATE"):
            return False
        self._append("GITHUB_STATE", state)
        return True

    def state(self, name: str) -> str:
        """Return a value that the main step kept, or the empty string."""
        return self._environ.get(f"STATE_{name}", "")

    def info(self, message: str) -> None:
        """Write one line to the log."""
        line = without_legacy_commands(one_line(message, 1000))
        # A line may not begin like a command, whoever wrote its first words; the runner skips blanks before it.
        self._write(line.replace("::", ": :", 1) if line.startswith("::") else line)

    def debug(self, message: str) -> None:
        """Write one line that is shown with step debug logging only, which sets RUNNER_DEBUG to 1."""
        if self._environ.get("RUNNER_DEBUG") == "1":
            self._command("debug", without_legacy_commands(one_line(message, 1000)))

    def notice(self, title: str, message: str) -> None:
        """Annotate the run with something worth knowing."""
        self._annotate("notice", title, message)

    def warning(self, title: str, message: str) -> None:
        """Annotate the run with something that went wrong and does not fail the step."""
        self._annotate("warning", title, message)

    def error(self, title: str, message: str) -> None:
        """Annotate the run with the reason of a failure; the exit code fails the step."""
        self._annotate("error", title, message)

    def summarize(self, title: str, rows: Iterable[Row], code: str = "") -> None:
        """Add a table, and a block of code below it, to the step's summary where the runner takes one.

        All of it is HTML without a blank line, in which GitHub reads no Markdown: escaping HTML is enough.
        """
        table = "".join(f"<tr>{''.join(f'<td>{_cell(cell)}</td>' for cell in row)}</tr>\n" for row in rows)
        block = f"<pre><code>{html.escape(code)}</code></pre>\n" if code else ""
        text = f"<h3>{_cell(title)}</h3>\n<table>\n{table}</table>\n{block}\n"
        if not self._environ.get("GITHUB_STEP_SUMMARY"):
            return
        try:
            self._append_text("GITHUB_STEP_SUMMARY", text)
        except RunnerFileUnavailableError as error:
            # What it would show is in the log and the outputs: no reason to fail a step that did its work.
            self.info(str(error))

    def _annotate(self, level: str, title: str, message: str) -> None:
        self._command(level, without_legacy_commands(message), title=without_legacy_commands(title))

    def _command(self, name: str, message: str, **properties: str) -> None:
        self._write(str(Command(name, properties, message)))

    def _write(self, line: str) -> None:
        self._stdout.write(f"{line}\n")
        # A mask must reach the runner before anything that it is to hide.
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
                f"The file that {variable} names cannot be written ({error.strerror}); "
                "the container must run as root, as GitHub's runner starts it."
            ) from error


def _cell(text: str) -> str:
    return html.escape(without_legacy_commands(one_line(text, 600)))
