import pytest

from mock_idp.attack.catalogue import (
    ACCEPTED,
    BROKEN,
    CONTROL,
    LAST_CONTROL,
    LIMITED,
    REFUSED,
    UNSENDABLE,
    Result,
    catalogue,
    verdict_of,
)
from mock_idp.job import Job


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, ACCEPTED),
        (204, ACCEPTED),
        (400, REFUSED),
        (401, REFUSED),
        (403, REFUSED),
        (413, REFUSED),
        (431, REFUSED),
        (408, LIMITED),
        (429, LIMITED),
        (302, BROKEN),
        (500, BROKEN),
        (503, BROKEN),
        (0, BROKEN),
    ],
)
def test_a_status_says_whether_the_token_was_refused(status, verdict):
    """A crash, a redirect, silence and a limit are no refusals."""
    assert verdict_of(status) == verdict


def test_the_pack_is_large_and_its_controls_surround_it():
    """At least forty attacks, names once each, all to be refused but the controls."""
    attacks = catalogue({})

    names = [attack.name for attack in attacks]
    assert len(names) == len(set(names)) > 100
    assert (attacks[0], attacks[-1]) == (CONTROL, LAST_CONTROL)
    assert {attack.name for attack in attacks if attack.expected == ACCEPTED} == {"control", "control-again"}
    assert all(attack.description for attack in attacks)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {
            "repository": "acme/bot",
            "ref": "refs/heads/release",
            "repository_id": "7",
            "repository_owner_id": "8",
        },
        {"ref": "refs/tags/v1"},
        {"environment": "production", "immutable_sub": True},
        {"event": "pull_request"},
        {"event": "schedule", "called_workflow": "o/r/.github/workflows/x.yml@v1"},
    ],
)
def test_every_attack_of_an_identity_is_another_job_than_the_control(options):
    """Whatever the control is, each change gives a job that GitHub could have and that is not the control's."""
    control = Job(**options)

    changed = {it.name: Job(**{**options, **it.changes}) for it in catalogue(options) if it.changes}
    assert [name for name, job in changed.items() if job == control] == []
    assert changed["recycled-name"].repository == control.repository
    assert changed["recycled-name"].repository_id != control.repository_id
    assert changed["namesake"].repository_id != control.repository_id


@pytest.mark.parametrize(
    ("options", "there", "not_there"),
    [
        ({}, {"other-branch", "pull-request"}, {"no-environment"}),
        ({"environment": "production"}, {"no-environment", "other-environment"}, set()),
        ({"ref": "refs/tags/v1"}, set(), {"other-branch", "tag-named-as-branch"}),
        ({"event": "pull_request"}, {"pull-request-target"}, {"pull-request", "other-branch"}),
    ],
)
def test_the_pack_has_what_makes_sense_for_the_job(options, there, not_there):
    """A control that is itself a pull request is not attacked with one."""
    names = {attack.name for attack in catalogue(options)}

    assert there <= names
    assert not not_there & names


@pytest.mark.parametrize(
    ("verdict", "good"), [(REFUSED, True), (UNSENDABLE, True), (ACCEPTED, False), (BROKEN, False)]
)
def test_only_a_refusal_satisfies_an_attack(verdict, good):
    """A token that cannot even be sent harms nobody."""
    assert Result(catalogue({})[1], verdict, 0, "", 0.0).is_as_expected is good
