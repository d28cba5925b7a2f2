import pytest

from mock_idp.runner.errors import ActionError
from mock_idp.runner.expressions import evaluate, runs_after

CONTEXTS = {
    "github": {"actor": "octocat", "ref": "main", "event": {"repository": {"name": "bot"}}},
    "inputs": {"api-url": "u"},
    "steps": {"token": {"outputs": {"Access-Token": "t"}, "outcome": "success"}},
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("${{ github.actor }}/${{github.REF}}", "octocat/main"),
        ("${{ inputs.api-url }}", "u"),
        ("${{ github.unknown }}", ""),
        ("${{ 'it''s' }}", "it's"),
        ("${{ steps.token.outputs.access-token }}", "t"),
        ("${{ STEPS.Token.Outcome }}", "success"),
        ("${{ steps.other.outputs.x }}", ""),
        ("${{ steps.token.outcome.more }}", ""),
        ("${{ github.event.repository.name }}", "bot"),
        ("${{ steps.token.outputs }}", "Object"),
    ],
)
def test_expressions_are_replaced(text, value):
    """Names have no case, an unknown property is empty, and an object becomes the word "Object"."""
    assert evaluate(text, CONTEXTS, "here") == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "${{ secrets.X }}",
            "here: Unrecognized named-value: 'secrets'; available here: github, inputs, steps",
        ),
        ("${{ github.a || 'b' }}", "here: mock-idp cannot evaluate ${{ github.a || 'b' }}"),
        ("${{ toJSON(github) }}", "run the action with act"),
        ("${{ github }}", "only context.name and 'text'"),
    ],
)
def test_expressions_that_are_not_known_are_refused(text, message):
    """An unsupported expression is an error, not a guess; the message says what can evaluate it."""
    with pytest.raises(ActionError) as caught:
        evaluate(text, CONTEXTS, "here")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("condition", "runs"),
    [
        ("always()", {"success", "failure", "cancelled"}),
        ("success()", {"success"}),
        ("failure()", {"failure"}),
        ("cancelled()", {"cancelled"}),
        ("${{ always() }}", {"success", "failure", "cancelled"}),
    ],
)
def test_conditions_of_stages(condition, runs):
    """The condition of a stage depends on the job's status."""
    assert {
        status for status in ("success", "failure", "cancelled") if runs_after(condition, status, "")
    } == runs


def test_other_conditions_are_refused():
    """An unsupported condition is an error, not a guess."""
    with pytest.raises(ActionError, match="post-if: mock-idp supports always"):
        runs_after("always() && true", "success", "post-if")
