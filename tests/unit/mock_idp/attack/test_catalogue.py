import pytest

from mock_idp.attack.catalogue import (
    ACCEPTED,
    BROKEN,
    LIMITED,
    REFUSED,
    UNSENDABLE,
    Attack,
    Result,
    verdict_of,
)


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
    """Only a 4xx status other than 408 and 429 is a refusal; a crash, a redirect, silence or a rate limit is not."""
    assert verdict_of(status) == verdict


@pytest.mark.parametrize(
    ("verdict", "good"), [(REFUSED, True), (UNSENDABLE, True), (ACCEPTED, False), (BROKEN, False)]
)
def test_only_a_refusal_satisfies_an_attack(verdict, good):
    """A token that cannot even be sent does no harm."""
    assert Result(Attack("alg-none", "unsigned"), verdict, 0, "", 0.0).is_as_expected is good
