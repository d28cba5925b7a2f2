"""Root certificates as they arrive in secrets, variables and exports (hashicorp/vault-action#561, #452, #204)."""

import base64
import ssl

import pytest
import trustme

from sentryagent_actions.pem import certificates

PEM = trustme.CA().cert_pem.bytes().decode()
OTHER = trustme.CA().cert_pem.bytes().decode()
KEY = trustme.CA().private_key_pem.bytes().decode()


@pytest.mark.parametrize(
    "written",
    [
        PEM,
        PEM.strip(),
        PEM.replace("\n", "\r\n"),
        PEM.replace("\n", " "),
        PEM.replace("\n", "\\n"),
        PEM.replace("\n", "\\r\\n"),
        f"# Corp root ü\n{PEM}",
        f"Certificate:\n    Data:\n        Version: 3\n{PEM}",
        f"{KEY}{PEM}",
        base64.b64encode(PEM.encode()).decode(),
        base64.encodebytes(PEM.encode()).decode(),
    ],
    ids=[
        "pem",
        "stripped",
        "crlf",
        "folded",
        "escaped",
        "escaped-crlf",
        "comment",
        "text",
        "key",
        "base64",
        "lines",
    ],
)
def test_a_certificate_is_found(written):
    """The certificate is found whatever happened to its line ends."""
    assert ssl.PEM_cert_to_DER_cert(certificates(written)) == ssl.PEM_cert_to_DER_cert(PEM)


def test_a_bundle_is_taken_whole():
    """All certificates of a bundle are kept, in order."""
    assert certificates(f"{PEM}\nnext:\n{OTHER}").count("-----BEGIN CERTIFICATE-----") == 2


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        (KEY, "contains a private key instead of a certificate; "),
        ("/etc/ssl/certs/corp.pem", "is a file name; "),
        ("C:\\certs\\corp.crt", "is a file name; "),
        (PEM.replace("CERTIFICATE", "TRUSTED CERTIFICATE"), "is in OpenSSL's TRUSTED CERTIFICATE format; "),
        (PEM.replace("\nM", "\nN", 1), "contains a certificate that cannot be read; "),
        (PEM[: len(PEM) // 2], "does not contain a PEM certificate; "),
        ("none", "does not contain a PEM certificate; "),
    ],
    ids=["key", "path", "windows", "trusted", "broken", "cut", "word"],
)
def test_what_is_no_certificate_is_named(written, problem):
    """Each mistake has its own message, which shows no part of a key."""
    with pytest.raises(ValueError, match=r".") as refusal:
        certificates(written)
    assert str(refusal.value).startswith(problem)
    assert KEY.splitlines()[1] not in str(refusal.value)
