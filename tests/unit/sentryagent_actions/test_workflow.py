"""The output for the runner: commands, files and log lines."""

import base64
import io
from urllib.parse import quote

import pytest

from sentryagent_actions.workflow import RunnerFileUnavailableError, Workflow


class Unbuffered(io.StringIO):
    """A stream that records what was flushed."""

    flushed = ""

    def flush(self):
        self.flushed = self.getvalue()


def test_mask_covers_encoded_forms_and_is_flushed():
    """A secret is masked plain, URL-encoded and in both base64 alphabets, and the masks are flushed at once."""
    stdout, secret = Unbuffered(), "a+b/c?~>>>"
    Workflow({}, stdout).mask(secret)
    assert stdout.flushed.splitlines() == [
        f"::add-mask::{secret}",
        f"::add-mask::{quote(secret, safe='').replace('%', '%25')}",
        f"::add-mask::{base64.b64encode(secret.encode()).decode().rstrip('=')}",
        f"::add-mask::{base64.urlsafe_b64encode(secret.encode()).decode().rstrip('=')}",
    ]


def test_annotation_is_one_line():
    """Newlines in the message and colons in the title are escaped."""
    stdout = io.StringIO()
    Workflow({}, stdout).error("a: b, c", "100 %\nsecond ##[add-mask]e")
    assert stdout.getvalue() == "::error title=a%3A b%2C c::100 %25%0Asecond # #[add-mask]e\n"


@pytest.mark.parametrize("text", ["::add-mask::e", "  ::error::x", "\n::error::x"])
def test_log_line_never_is_a_command(text):
    """Text that looks like a command is broken up; the runner ignores spaces before a command."""
    stdout = io.StringIO()
    Workflow({}, stdout).info(text)
    assert stdout.getvalue().startswith(": :")
    assert stdout.getvalue().count("\n") == 1


def test_summary_is_html_in_which_nothing_is_markup(tmp_path):
    """Cells and code are escaped, and there is no blank line, after which Markdown would be parsed."""
    summary = tmp_path / "summary"
    Workflow({"GITHUB_STEP_SUMMARY": str(summary)}, io.StringIO()).summarize(
        "T", [("<b>", "[x](javascript:1)\n\n# h | `c`")], "</code>"
    )
    text = summary.read_text()
    assert "&lt;b&gt;" in text
    assert "<pre><code>&lt;/code&gt;</code></pre>" in text
    assert "\n\n" not in text.rstrip()


def test_summary_needs_no_file():
    """Without a summary file nothing is written, and that is not an error."""
    stdout = io.StringIO()
    Workflow({}, stdout).summarize("T", [("a", "b")])
    assert not stdout.getvalue()


def test_summary_that_cannot_be_written_fails_nothing(tmp_path):
    """If the summary cannot be written, the log says so, and the step does not fail."""
    stdout = io.StringIO()
    Workflow({"GITHUB_STEP_SUMMARY": str(tmp_path)}, stdout).summarize("T", [("a", "b")])
    assert stdout.getvalue().startswith("The file that GITHUB_STEP_SUMMARY names cannot be written")


def test_outputs_need_their_file():
    """Without GITHUB_OUTPUT outputs are not printed, because the token would be in the log."""
    stdout = io.StringIO()
    with pytest.raises(RunnerFileUnavailableError, match="mock-idp run"):
        Workflow({}, stdout).set_outputs({"access-token": "secret"})
    assert not stdout.getvalue()


def test_unwritable_output_file_names_the_remedy(tmp_path):
    """The error says to run the container as root."""
    with pytest.raises(RunnerFileUnavailableError, match="run as root"):
        Workflow({"GITHUB_OUTPUT": str(tmp_path)}, io.StringIO()).set_outputs({"a": "b"})


def test_state_is_kept_where_the_runner_takes_it(tmp_path):
    """State is written to its file; without a file it is not written."""
    state = tmp_path / "state"
    assert Workflow({"GITHUB_STATE": str(state)}, io.StringIO()).save_state({"a": "b"}) is True
    assert "\nb\n" in state.read_text()
    assert Workflow({}, io.StringIO()).save_state({"a": "b"}) is False
