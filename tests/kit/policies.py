"""Requests to the trust-policy resource, as an admin by default."""

from typing import Any

from kit.provider import POLICIES, REPOSITORY, Provider


def post(provider: Provider, headers: Any = None, /, **body: Any) -> Any:
    return provider.post(POLICIES, json={"repository": REPOSITORY, **body}, headers=headers)


def put(
    provider: Provider, policy: Any, headers: Any = None, /, *, if_match: str | None = None, **body: Any
) -> Any:
    extra = {} if if_match is None else {"If-Match": if_match}
    return provider.put(
        f"{POLICIES}/{policy['id']}",
        json={"repository": REPOSITORY, **body},
        headers={**(headers or provider.admin), **extra},
    )


def get(provider: Provider, policy_id: str) -> Any:
    return provider.get(f"{POLICIES}/{policy_id}")


def delete(provider: Provider, policy: Any) -> Any:
    return provider.delete(f"{POLICIES}/{policy['id']}")


def listed(provider: Provider, query: str = "") -> Any:
    return provider.get(f"{POLICIES}?limit=100&{query}").json["data"]
