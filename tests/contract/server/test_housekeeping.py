"""Expired rows are deleted in time, and never too early."""

from datetime import timedelta

import pytest

from kit.refusals import assert_refused
from kit.tokens import bearer
from mock_idp.job import Job
from sentryagent_idp.domain.used_token import UsedToken
from sentryagent_idp.runtime.periodic import start
from sentryagent_idp.use_cases.housekeeping import Housekeeping

LIFETIME = 300
LEEWAY = 30


def keeper(provider, days=None):
    return Housekeeping(provider.store, provider.clock, days)


def test_a_used_token_is_remembered_as_long_as_it_verifies(provider):
    """A used token is kept until its leeway ends: no cleanup makes a replay possible (B7)."""
    provider.policy()
    token = provider.github_token()
    assert provider.exchange(token).status_code == 200

    provider.clock.advance(LIFETIME + LEEWAY - 1)
    assert keeper(provider).run() == 0
    assert_refused(provider.exchange(token), 401, "INVALID_OIDC_TOKEN", {"reason": "replayed"})
    provider.clock.advance(1)
    assert_refused(provider.exchange(token), 401, "INVALID_OIDC_TOKEN", {"reason": "expired"})
    assert keeper(provider).run() == 0
    provider.clock.advance(61)
    assert keeper(provider).run() == 1


def test_a_revoked_token_is_remembered_as_long_as_it_lives(provider):
    """A revocation is kept until its token has expired, and then deleted."""
    provider.policy(repositoryId=Job().repository_id, repositoryOwnerId=Job().repository_owner_id)
    answer = provider.exchange(provider.github_token(), expiresIn=3600)
    headers = bearer(answer.json["access_token"])
    provider.http.post("/api/v1/token/revoke", data={"token": answer.json["access_token"]}, headers=headers)

    provider.clock.advance(3599)
    assert keeper(provider).run() == 1  # only the used token
    assert provider.http.get("/api/v1/agents", headers=headers).status_code == 401
    provider.clock.advance(2)
    assert keeper(provider).run() == 1


def test_more_rows_than_a_batch_go_in_one_run(provider):
    """One run deletes every expired row in batches, lets others write between them, and returns the count."""
    rests = []
    until = provider.clock.now + timedelta(seconds=1)
    with provider.store.write() as tx:
        for number in range(1201):
            assert tx.used_tokens.claim(UsedToken("issuer", str(number), until))
        tx.revoked_tokens.add("revoked", keep_until=until)
    provider.clock.advance(2)

    assert Housekeeping(provider.store, provider.clock, None, rests.append).run() == 1202
    assert len(rests) == 12
    assert min(rests) > 0
    assert keeper(provider).run() == 0


def test_the_audit_stays_without_retention(provider):
    """Without SENTRYAGENT_AUDIT_RETENTION no record is ever deleted."""
    provider.policy()
    provider.clock.advance(10 * 365 * 86_400)
    provider.admin = provider.admin_headers()

    assert keeper(provider).run() == 0
    assert provider.audit(action="policy.created")


@pytest.mark.parametrize("failing", [RuntimeError("defect"), None])
def test_background_tasks_go_on(failing):
    """Tasks run once an interval until they are stopped, even after one of them failed."""
    ran = []
    waits = iter([False, False, True])

    def fail():
        if failing:
            raise failing

    start([fail, lambda: ran.append(1)], lambda seconds: next(waits), every=5).join(10)

    assert ran == [1, 1]


def test_a_task_that_had_work_comes_again_soon():
    """A task that did work runs again after a short pause; otherwise it waits for its interval."""
    waited = []
    done = iter([3, 0, 1])

    start(
        [lambda: next(done)], lambda seconds: waited.append(seconds) or len(waited) > 5, every=5, after_work=1
    ).join(10)

    assert waited == [5, 1, 5, 1, 5, 5]


def test_a_task_may_begin_at_once():
    """A task can run at once, so that a gauge behind an alert is correct from the start."""
    waited = []

    start([list], lambda seconds: waited.append(seconds) or len(waited) > 2, every=5, at_once=True).join(10)

    assert waited == [0, 5, 5]


def test_a_purge_does_not_wait_for_the_disk(provider, monkeypatch):
    """A purge on SQLite does not wait for the disk, because exchanges wait until it commits."""
    asked, write = [], provider.store.write
    monkeypatch.setattr(provider.store, "write", lambda **options: asked.append(options) or write(**options))

    keeper(provider).run()

    assert asked == [{"durable": False}]
