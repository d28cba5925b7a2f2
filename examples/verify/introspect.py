"""Ask the provider whether a token is still good: python introspect.py API_URL < token (RFC 7662).

The asking service has a token of its own with the scope tokens:read, in the variable SERVICE_TOKEN.
"""

import os
import sys

import httpx


def introspect(token: str, api_url: str, service_token: str) -> dict[str, object]:
    """Return the provider's answer; `active` decides. Raises httpx.HTTPError: an unanswered question is no yes."""
    answer = httpx.post(
        f"{api_url}/api/v1/token/introspect",
        data={"token": token},
        headers={"Authorization": f"Bearer {service_token}"},
    )
    body: dict[str, object] = answer.raise_for_status().json()
    return body


def main(api_url: str) -> None:
    """Say who calls, or end with exit code 1."""
    answer = introspect(sys.stdin.read().strip(), api_url, os.environ["SERVICE_TOKEN"])
    if answer["active"] is not True:
        sys.exit("401: the token is not active")
    print(f"200: agent {answer['sub']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
