from pathlib import Path

import pytest

from mock_idp.runner.action import Action, Input
from mock_idp.runner.inputs import entry_and_arguments, input_variables, resolve_inputs


def _action(**options):
    return Action("Sample", Path(), Path(), **options)


def test_defaults_apply_where_nothing_is_given():
    """Given values override defaults, even if they are empty; every declared input has a value."""
    action = _action(inputs=(Input("a", "${{ github.actor }}"), Input("b", "x"), Input("c")))

    values, warnings = resolve_inputs(action, {"B": ""}, {"github": {"actor": "octocat"}})

    assert (values, warnings) == ({"a": "octocat", "b": "", "c": ""}, [])


def test_undeclared_inputs_are_handed_on_with_a_warning():
    """An undeclared input is passed on with a warning, except for the runner's own two names."""
    values, warnings = resolve_inputs(_action(inputs=(Input("a"),)), {"typo": "1", "args": "x"}, {})

    assert values == {"a": "", "typo": "1", "args": "x"}
    assert warnings == ["Unexpected input(s) 'typo', valid inputs are ['entryPoint', 'args', 'a']"]


@pytest.mark.parametrize(
    ("given", "warnings"), [({}, []), ({"a": "1"}, ["Input 'a' has been deprecated with message: use b"])]
)
def test_a_deprecated_input_warns_when_it_is_used(given, warnings):
    """A deprecated input warns only if it is given."""
    assert resolve_inputs(_action(inputs=(Input("a", "", "use b"),)), given, {})[1] == warnings


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("api-url", "INPUT_API-URL"),
        ("dotted.name", "INPUT_DOTTED.NAME"),
        ("two words", "INPUT_TWO_WORDS"),
        ("under_score", "INPUT_UNDER_SCORE"),
    ],
)
def test_only_blanks_change_in_a_variables_name(name, variable):
    """Hyphens and dots are kept, unlike in act; only spaces become underscores."""
    assert input_variables({name: "v"}) == {variable: "v"}


@pytest.mark.parametrize(
    ("options", "inputs", "expected"),
    [
        ({}, {}, ("", None)),
        ({}, {"entryPoint": "/e", "args": "a 'b c'"}, ("/e", ["a", "b c"])),
        ({"entrypoint": "/r"}, {"entryPoint": "/e"}, ("/r", None)),
        ({"args": ("${{ inputs.x }}", "")}, {"x": "1 2", "args": "z"}, ("", ["1 2", ""])),
        ({"args": ()}, {}, ("", [])),
    ],
)
def test_the_actions_own_entry_point_and_arguments_win(options, inputs, expected):
    """`runs` overrides `with`; arguments with spaces and empty arguments are kept."""
    assert entry_and_arguments(_action(**options), inputs) == expected
