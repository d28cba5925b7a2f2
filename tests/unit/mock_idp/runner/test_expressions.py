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
    """Names are compared without case, an unknown property is empty, and what is no scalar is GitHub's word for it."""
    assert evaluate(text, CONTEXTS, "here") == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${{ secrets.X }}", "here: Unrecognized named-value: 'secrets'; here are github, inputs, steps"),
        ("${{ github.a || 'b' }}", "here: mock-idp cannot evaluate ${{ github.a || 'b' }}"),
        ("${{ toJSON(github) }}", "run the action with act"),
        ("${{ github }}", "only context.name and 'text'"),
    ],
)
def test_expressions_that_are_not_known_are_refused(text, message):
    """Better no value than a wrong one; the sentence says what can evaluate it."""
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
    """A stage runs by how the job went so far."""
    assert {
        status for status in ("success", "failure", "cancelled") if runs_after(condition, status, "")
    } == runs


def test_other_conditions_are_refused():
    """A stage that might have to run is not guessed about."""
    with pytest.raises(ActionError, match="post-if: mock-idp knows always"):
        runs_after("always() && true", "success", "post-if")
