"""Races between two exchanges, each replayed without threads in its harmful order."""

from kit.provider import POLICIES
from kit.refusals import assert_refused
from sentryagent_idp.store.trust_policies import PolicyTable
from sentryagent_idp.store.used_tokens import UsedTokenTable


def test_of_two_exchanges_of_a_token_that_both_found_it_unused_one_succeeds(provider, monkeypatch):
    """PostgreSQL hides uncommitted rows from other transactions, so the unique key must decide, not the read (B6)."""
    monkeypatch.setattr(UsedTokenTable, "contains", lambda *_: False)
    policy = provider.policy()
    token = provider.github_token()

    assert provider.exchange(token).status_code == 200
    assert_refused(provider.exchange(token), 401, "INVALID_OIDC_TOKEN", {"reason": "replayed"})
    # An unpinned policy is decided on inside the transaction.
    provider.replace_policy(policy, repositoryId=None, repositoryOwnerId=None)
    assert_refused(provider.exchange(token), 401, "INVALID_OIDC_TOKEN", {"reason": "replayed"})
    assert len(provider.audit(action="token.issued")) == 1


def test_of_two_repositories_that_use_a_name_first_the_second_gets_nothing(provider, monkeypatch):
    """If another repository pins the name between our decision and our pin, no token is issued (A8)."""
    pin = PolicyTable.pin

    def second(self, **names):
        pin(self, **{**names, "repository_id": "999", "owner_id": "998"})
        return pin(self, **names)

    policy = provider.policy()
    monkeypatch.setattr(PolicyTable, "pin", second)

    assert_refused(provider.exchange(), 403, "IDENTITY_CHANGED", {})

    assert provider.audit(action="token.issued") == []
    stored = provider.get(f"{POLICIES}/{policy['id']}").json
    assert (stored["repositoryId"], stored["lastUsedAt"]) == (None, None)
