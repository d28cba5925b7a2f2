"""A throw-away certificate authority: TLS for the mock, also under host names that are hard-coded in clients."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

CA_FILE_NAME: Final = "mock-idp-ca.pem"
LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "::1")
_LIFETIME: Final = timedelta(days=7)


@dataclass(frozen=True)
class Certificate:
    """The server's TLS context, the CA file that clients have to trust, and the names that they may use."""

    context: ssl.SSLContext
    ca_file: Path
    names: tuple[str, ...]


def make_certificate(names: Iterable[str], folder: Path) -> Certificate:
    """Create a certificate for these host names and addresses, valid for a week, with a new authority.

    Only the authority's certificate is written, to `folder`; no private key stays on disk, so nobody can use the trust
    in the file for another certificate. Raises OSError if the file cannot be written, ValueError for an invalid host
    name.
    """
    # Imported here, because only `--tls` needs it, and it takes time to import.
    import trustme

    unique = tuple(dict.fromkeys((*LOCAL_NAMES, *names)))
    authority = trustme.CA(
        path_length=0, organization_name="mock-idp", organization_unit_name="throw-away authority"
    )
    end = datetime.now(timezone.utc) + _LIFETIME  # noqa: UP017 (one spelling for every supported Python)
    leaf = authority.issue_cert(*unique, organization_name="mock-idp", not_after=end)
    folder.mkdir(parents=True, exist_ok=True)
    ca_file = folder / CA_FILE_NAME
    authority.cert_pem.write_to_path(ca_file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    return Certificate(context, ca_file.resolve(), unique)


def recipe(certificate: Certificate, issuer_host: str, port: int) -> str:
    """Return instructions for clients: how to trust the mock, and how to reach it under a fixed host name."""
    trust = ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE")
    variables = " ".join(f"{name}={certificate.ca_file}" for name in trust)
    lines = ["Clients trust the mock through the authority's certificate:", f"  export {variables}"]
    if issuer_host not in LOCAL_NAMES:
        lines += [
            f"To reach {issuer_host} here, they need a line in /etc/hosts (or docker run --add-host {issuer_host}:ADDRESS):",
            f"  127.0.0.1 {issuer_host}",
        ]
        lines += (
            []
            if port == 443
            else [f"Clients connect to {issuer_host} on port 443, but this mock listens on {port}."]
        )
    return "\n".join(lines)
