import base64
import json

import jwt
import pytest

from mock_idp.faults.plan import PlannedFault
from mock_idp.issuer import Clock
from mock_idp.job import Job
from mock_idp.strict_fields import InvalidFieldError


def _payload(token):
    return json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))


def test_each_token_has_a_jti_of_its_own(issuer):
    """Even in one step, every request gives a new token."""
    one, two = (_payload(issuer.mint(Job())) for _ in range(2))

    assert one["jti"] != two["jti"]
    assert {**one, "jti": ""} == {**two, "jti": ""}


def test_given_claims_override_the_job_and_none_removes(issuer):
    """What the caller gives wins also over a fault."""
    claims = {"ref": "refs/heads/evil", "actor": None, "exp": 7}

    payload = _payload(issuer.mint(Job(), claims=claims, fault="expired"))

    assert (payload["ref"], payload["exp"]) == ("refs/heads/evil", 7)
    assert "actor" not in payload


def test_given_header_members_override_and_none_removes(issuer):
    """The header can be bent in the same way."""
    token = issuer.mint(Job(), header={"typ": None, "kid": "mine"})

    header = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))
    assert (header.get("typ"), header["kid"], header["alg"]) == (None, "mine", "RS256")


def test_a_request_token_is_known_until_its_job_ends(issuer):
    """Afterwards it is remembered as ended, and a second end is no end."""
    started = issuer.start_job(Job())

    assert issuer.job_of(started.request_token) == started
    assert issuer.end_job(started.job_id)
    assert issuer.job_of(started.request_token) is None
    assert issuer.is_ended(started.request_token)
    assert not issuer.end_job(started.job_id)


def test_a_job_without_permission_has_no_request_variables(issuer):
    """GitHub leaves the two variables out; nothing else tells a step why."""
    granted, refused = (
        issuer.start_job(Job(id_token=mode)).describe("http://h", issuer.url)["variables"]
        for mode in ("write", "none")
    )

    names = {"ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"}
    assert granted.keys() - refused.keys() == names
    assert granted["ACTIONS_ID_TOKEN_REQUEST_URL"].startswith("http://h/232//idtoken/")


def test_the_request_token_does_not_show_in_a_representation(issuer):
    """A started job can be logged."""
    started = issuer.start_job(Job())

    assert started.request_token not in repr(started)


def test_counted_faults_happen_one_after_the_other_and_end(issuer):
    """Twice the first, once the second, then GitHub again."""
    first = PlannedFault("token", status=503, times=2)
    second = PlannedFault("token", fault="garbage", times=1)
    issuer.plan_fault(first)
    issuer.plan_fault(second)

    seen = [issuer.next_fault("token") for _ in range(4)]

    assert [fault and (fault.status, fault.fault) for fault in seen] == [
        (503, ""),
        (503, ""),
        (None, "garbage"),
        None,
    ]


def test_a_fault_without_end_holds_until_another_one_or_clearing(issuer):
    """It does not stand in the way of a later one for the same endpoint, and leaves other endpoints alone."""
    endless, later = PlannedFault("jwks", status=500), PlannedFault("jwks", status=502)
    issuer.plan_fault(endless)
    held = [issuer.next_fault("jwks") for _ in range(3)]
    issuer.plan_fault(later)

    assert held == [endless] * 3
    assert issuer.next_fault("jwks") == later
    assert issuer.next_fault("token") is None
    issuer.clear_faults()
    assert issuer.next_fault("jwks") is None


def test_the_clock_follows_the_machine_unless_told_otherwise():
    """Shifted it keeps running, frozen it stands, and a shift ends the freeze."""
    machine = [1000.9]
    clock = Clock(real=lambda: machine[0])
    seen = [clock.now()]
    clock.shift(-300)
    machine[0] += 1
    seen.append(clock.now())
    clock.freeze(5)
    machine[0] += 1
    seen.append(clock.now())
    clock.shift(0)
    seen.append(clock.now())

    assert seen == [1000, 701, 5, 1002]


def test_the_clock_is_looked_up_at_each_call(monkeypatch):
    """Libraries such as freezegun put another `time.time` in place, after the mock was started."""
    clock = Clock()
    monkeypatch.setattr("time.time", lambda: 2000.5)

    assert clock.now() == 2000


def test_ghes_starts_no_job_with_ids_in_its_sub(make_issuer):
    """Refused when the job starts, not when its token is asked for."""
    with pytest.raises(InvalidFieldError, match="GHES"):
        make_issuer("http://127.0.0.1:3001/_services/token").start_job(Job(immutable_sub=True))


def test_tokens_carry_the_time_of_the_mock(issuer, now):
    """A shifted clock shows in `iat`."""
    issuer.clock.shift(120)

    assert _payload(issuer.mint(Job()))["iat"] == now + 120


def test_reset_clears_clock_faults_and_log_but_not_keys_and_jobs(issuer, now):
    """Tests share a mock by resetting it; tokens of running jobs stay good."""
    started = issuer.start_job(Job())
    kid = issuer.ring.signing.kid
    issuer.clock.freeze(1)
    issuer.plan_fault(PlannedFault("token", status=500))
    issuer.record("jwks", "GET", 200, "", "")

    issuer.reset()

    assert (issuer.clock.now(), issuer.next_fault("token"), issuer.requests()) == (now, None, [])
    assert issuer.job_of(started.request_token) == started
    assert issuer.ring.signing.kid == kid


@pytest.mark.parametrize("publish", [True, False])
def test_rotation_changes_the_signing_key_at_once(issuer, publish):
    """The next token is signed with the new key, whether or not the set shows it."""
    new = issuer.rotate(publish=publish)

    assert issuer.ring.signing is new
    assert (new in issuer.ring.published) is publish


@pytest.mark.parametrize("fault", ["other-published-kid", "signed-by-idle-key"])
def test_a_forgery_stays_one_when_only_one_key_is_published(issuer, fault):
    """There is no second key to lie about, so a stranger's is taken."""
    issuer.retire()

    token = issuer.mint(Job(), fault=fault)

    with pytest.raises((jwt.InvalidSignatureError, KeyError)):
        _verify(token, issuer.ring.key_set())


def _verify(token, key_set):
    key = jwt.PyJWKSet.from_dict(key_set)[jwt.get_unverified_header(token)["kid"]]
    return jwt.PyJWS().decode(token, key, ["RS256"])
