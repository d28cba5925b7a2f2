"""Whatever the provider responds is only text: it starts no command, sets no output and is not markup."""

import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sentryagent_actions.workflow import Workflow

EXCHANGE = "POST /oidc/token"
FRAGMENTS = [
    *(
        "\n",
        "\r",
        "\r\n",
        "\u2028",
        "\x85",
        "%0A",
        "%0D%0A",
        "\x00",
        "\x1b[31m",
        "\u202e",
        " ",
        "|",
        "`",
        "'",
    ),
    *(
        "::add-mask::e",
        "::error::x",
        "::stop-commands::t",
        "::set-output name=access-token::x",
        "##[add-mask]e",
    ),
    *(
        "##[",
        "#[",
        "::",
        "]",
        "<td>",
        "</td>",
        "</table>",
        "<script>",
        "&lt;",
        "[a](javascript:1)",
        "\n\n# h",
    ),
    *("authenticated=true", "access-token<<EOF", "EOF", "ghadelimiter_", "${{ secrets.X }}", "$(id)", "../"),
]
hostile = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=5)), max_size=8).map("".join)
ALLOWED_TAGS = {"h3", "table", "tr", "th", "td", "pre", "code", "p", "a"}


def commands(log):
    """Return the commands that GitHub's runner would run for a log, in both of its syntaxes."""
    found = []
    for line in re.split(r"\r\n|\r|\n", log):
        command = re.match(r"\s*::([A-Za-z-]+)(?: [^:]*)?::", line)
        found += [command[1].lower()] if command else []
        found += [f"legacy {name}" for name in re.findall(r"##\[([A-Za-z-]+)", line)]
    return found


@given(words=st.lists(hostile, min_size=9, max_size=9))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_words_of_a_refusal_are_text(world, words):
    """Message, claims, conditions, hints and suggested policy of a refusal are shown as text only."""
    message, claim, value, identifier, condition, expected, actual, hint, branch = words
    failed = {"condition": condition, "expected": expected, "actual": actual, "hint": hint}
    body = {
        "code": "TRUST_POLICY_VIOLATION",
        "message": message,
        "details": {
            "claims": {claim: value},
            "nearestPolicies": [{"id": identifier, "failed": [failed]}],
            "suggestedPolicy": {"repository": "o/r", "branch": branch},
        },
    }
    for file in world.files.values():
        file.write_text("")
    world.script.on(EXCHANGE, world.answer(status=403, json=body, headers={"X-Request-Id": "req-1"}))

    outcome = world.run("issue-token", agent_id=world.agent_id)

    assert [name for name in commands(outcome.stdout) if name != "add-mask"] == ["error"]
    assert len(outcome.commands("add-mask")) == 2
    assert outcome.outputs == {
        "authenticated": "false",
        "error-code": "TRUST_POLICY_VIOLATION",
        "http-status": "403",
        "retryable": "false",
        "request-id": "req-1",
    }
    assert set(re.findall(r"</?([^\s>]*)", outcome.summary)) <= ALLOWED_TAGS
    assert "\n\n" not in outcome.summary.rstrip("\n")


@given(text=hostile)
@settings(max_examples=100, deadline=None)
def test_a_log_line_is_one_line_and_no_command(text):
    """Any text is logged as one line that is not a command."""
    written = []

    class Stream:
        def write(self, line):
            written.append(line)

        def flush(self):
            """Do nothing: there is no buffer."""

    Workflow({}, Stream()).info(text)

    [line] = written
    assert line.endswith("\n")
    assert not re.search(r"[\r\n]", line[:-1])
    assert commands(line) == []
