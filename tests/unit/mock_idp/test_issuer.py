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
    """Every request gets a new token, even within one step."""
    one, two = (_payload(issuer.mint(Job())) for _ in range(2))

    assert one["jti"] != two["jti"]
    assert {**one, "jti": ""} == {**two, "jti": ""}


def test_given_claims_override_the_job_and_none_removes(issuer):
    """Given claims override the job's and the fault's; `None` removes a claim."""
    claims = {"ref": "refs/heads/evil", "actor": None, "exp": 7}

    payload = _payload(issuer.mint(Job(), claims=claims, fault="expired"))

    assert (payload["ref"], payload["exp"]) == ("refs/heads/evil", 7)
    assert "actor" not in payload


def test_given_header_members_override_and_none_removes(issuer):
    """Header fields are overridden and removed in the same way."""
    token = issuer.mint(Job(), header={"typ": None, "kid": "mine"})

    header = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))
    assert (header.get("typ"), header["kid"], header["alg"]) == (None, "mine", "RS256")


def test_a_request_token_is_known_until_its_job_ends(issuer):
    """A request token is valid until its job ends, and then known as ended; a job can be ended only once."""
    started = issuer.start_job(Job())

    assert issuer.job_of(started.request_token) == started
    assert issuer.end_job(started.job_id)
    assert issuer.job_of(started.request_token) is None
    assert issuer.is_ended(started.request_token)
    assert not issuer.end_job(started.job_id)


def test_a_job_without_permission_has_no_request_variables(issuer):
    """Without permission GitHub does not set the two variables of the ID-token request."""
    granted, refused = (
        issuer.start_job(Job(id_token=mode)).describe("http://h", issuer.url)["variables"]
        for mode in ("write", "none")
    )

    names = {"ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"}
    assert granted.keys() - refused.keys() == names
    assert granted["ACTIONS_ID_TOKEN_REQUEST_URL"].startswith("http://h/232//idtoken/")


def test_the_request_token_does_not_show_in_a_representation(issuer):
    """The request token is not in the `repr` of a started job, so that a job can be logged."""
    started = issuer.start_job(Job())

    assert started.request_token not in repr(started)


def test_counted_faults_happen_one_after_the_other_and_end(issuer):
    """Planned faults happen in order and as often as planned; then requests succeed again."""
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
    """An unlimited fault does not block a later one for the same endpoint, and does not affect other endpoints."""
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
    """A shifted clock keeps running, a frozen one stands still, and a shift ends a freeze."""
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
    """`time.time` is looked up at each call, because libraries such as freezegun replace it later."""
    clock = Clock()
    monkeypatch.setattr("time.time", lambda: 2000.5)

    assert clock.now() == 2000


def test_ghes_starts_no_job_with_ids_in_its_sub(make_issuer):
    """A job that GHES cannot have is refused at its start, not when its token is requested."""
    with pytest.raises(InvalidFieldError, match="GHES"):
        make_issuer("http://127.0.0.1:3001/_services/token").start_job(Job(immutable_sub=True))


def test_tokens_carry_the_time_of_the_mock(issuer, now):
    """`iat` follows the mock's shifted clock."""
    issuer.clock.shift(120)

    assert _payload(issuer.mint(Job()))["iat"] == now + 120


def test_reset_clears_clock_faults_and_log_but_not_keys_and_jobs(issuer, now):
    """A reset clears clock, faults and log, so that tests can share a mock; request tokens of running jobs stay valid."""
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
    """The next token is signed with the new key, whether or not the key set has it."""
    new = issuer.rotate(publish=publish)

    assert issuer.ring.signing is new
    assert (new in issuer.ring.published) is publish


@pytest.mark.parametrize("fault", ["other-published-kid", "signed-by-idle-key"])
def test_a_forgery_stays_one_when_only_one_key_is_published(issuer, fault):
    """If only one key is published, the fault uses a foreign key instead of the second one."""
    issuer.retire()

    token = issuer.mint(Job(), fault=fault)

    with pytest.raises((jwt.InvalidSignatureError, KeyError)):
        _verify(token, issuer.ring.key_set())


def _verify(token, key_set):
    key = jwt.PyJWKSet.from_dict(key_set)[jwt.get_unverified_header(token)["kid"]]
    return jwt.PyJWS().decode(token, key, ["RS256"])
