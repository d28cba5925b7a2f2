"""What the second of two exchanges at one moment finds: each race is played by hand, in the order that would hurt."""

from kit.provider import POLICIES
from kit.refusals import assert_refused
from sentryagent_idp.store.trust_policies import PolicyTable
from sentryagent_idp.store.used_tokens import UsedTokenTable


def test_of_two_exchanges_of_a_token_that_both_found_it_unused_one_succeeds(provider, monkeypatch):
    """PostgreSQL does not show what another transaction has not committed: the unique key decides, not the look (B6)."""
    monkeypatch.setattr(UsedTokenTable, "contains", lambda *_: False)
    policy = provider.policy()
    token = provider.github_token()

    assert provider.exchange(token).status_code == 200
    assert_refused(provider.exchange(token), 401, "INVALID_OIDC_TOKEN", {"reason": "replayed"})
    # Without its pins the policy takes the way through the database alone.
    provider.replace_policy(policy, repositoryId=None, repositoryOwnerId=None)
    assert_refused(provider.exchange(token), 401, "INVALID_OIDC_TOKEN", {"reason": "replayed"})
    assert len(provider.audit(action="token.issued")) == 1


def test_of_two_repositories_that_use_a_name_first_the_second_gets_nothing(provider, monkeypatch):
    """Where another repository pins the name between the decision and our pin, no token is issued (A8)."""
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
