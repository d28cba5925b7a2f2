import pytest

from mock_idp.attack.catalogue import faults, probes
from mock_idp.attack.identities import POLICY, catalogue
from mock_idp.attack.risks import RISKS

EVERYTHING = {"environment": "production"}


def test_every_row_has_its_judgement_and_no_judgement_lacks_its_row():
    """Each attack has exactly one risk assessment; without one it would count as a control."""
    rows = {attack.name for attack in catalogue(EVERYTHING, POLICY)} - {"control", "control-again"}

    assert rows == set(RISKS)
    assert len(rows) > 120
    assert {attack.name for attack in (*faults(), *probes())} <= rows


@pytest.mark.parametrize(
    ("name", "who", "severity"),
    [
        # Anyone can make these from scratch.
        ("alg-none", "anyone", "high"),
        ("hs256-with-public-key", "anyone", "high"),
        ("foreign-kid", "anyone", "high"),
        ("own-jwk", "anyone", "high"),
        ("kid-sql", "anyone", "high"),
        ("own-url-followed", "anyone", "high"),
        ("keys-answer-503", "anyone", "high"),
        ("fetch-for-each-unknown-kid", "anyone", "medium"),
        # Anyone can find these in a log, or receive them as another service.
        ("expired", "anyone", "high"),
        ("leeway-of-expiry", "anyone", "medium"),
        ("wrong-audience", "anyone", "high"),
        ("replay", "anyone", "medium"),
        ("padded", "anyone", "low"),
        # GitHub issues these to an attacker's workflow.
        ("namesake", "a repository", "high"),
        ("recycled-name", "a repository", "high"),
        ("pull-request-target", "a repository", "high"),
        ("workflow-of-another-repository", "a repository", "high"),
        ("other-runner", "a repository", "medium"),
        ("issuer-with-slug", "a repository", "high"),
        # GitHub does not sign these.
        ("float-times", "GitHub only", "low"),
        ("nan-expiry", "GitHub only", "medium"),
        ("zip-header", "GitHub only", "low"),
        ("embedded-jwk", "GitHub only", "low"),
        ("missing-iat", "GitHub only", "low"),
        ("missing-repository", "GitHub only", "low"),
        ("duplicate-member", "GitHub only", "low"),
        ("repository-array", "GitHub only", "low"),
        ("repository-homoglyph", "GitHub only", "low"),
        ("oversize", "GitHub only", "low"),
        ("leeway-of-not-before", "GitHub only", "low"),
    ],
)
def test_who_can_make_it(name, who, severity):
    """Who can make a token decides whether its acceptance fails the run."""
    assert (RISKS[name].who, RISKS[name].severity) == (who, severity)


def test_each_judgement_has_a_source_and_a_remedy():
    """Each assessment has a remedy, and the specification that demands it."""
    for name, risk in RISKS.items():
        assert risk.source.startswith(("RFC ", "OpenID ", "GitHub ")), name
        assert risk.remedy.endswith("."), name
