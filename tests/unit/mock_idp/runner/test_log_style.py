import pytest

from mock_idp.runner.log_style import is_wanted, styled


@pytest.mark.parametrize(
    ("environment", "is_terminal", "wanted"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"TERM": "dumb"}, True, False),
    ],
)
def test_colours_are_for_terminals_alone(environment, is_terminal, wanted):
    """A file, a pipe and NO_COLOR get the runner's plain marks."""
    assert is_wanted(environment, is_terminal=is_terminal) is wanted


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("plain", ["plain"]),
        ("##[group]Run x", ["\x1b[1m▶ Run x\x1b[0m"]),
        ("##[endgroup]", []),
        ("##[error]bad", ["\x1b[31merror: bad\x1b[0m"]),
        ("##[warning]w", ["\x1b[33mwarning: w\x1b[0m"]),
        ("text ##[error]bad", ["text ##[error]bad"]),
        ("##[unknown]x", ["##[unknown]x"]),
    ],
)
def test_marks_become_colours(line, shown):
    """The runner's marks get colours as on the run's page; other lines do not change."""
    assert styled(line) == shown
