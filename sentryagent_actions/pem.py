"""The input `ca-certificate`: PEM text (RFC 7468), also in the forms that secrets and variables turn it into."""

import base64
import binascii
import re
import ssl
import textwrap

_CERTIFICATE = re.compile(
    r"-----BEGIN (?:X509 )?CERTIFICATE-----(.*?)-----END (?:X509 )?CERTIFICATE-----", re.DOTALL
)
_EXAMPLE = "give the text from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----"


def certificates(value: str) -> str:
    r"""Return the certificates in `value` as PEM that OpenSSL reads, without any text around them.

    Lines folded into one (YAML's `>`), a literal `\n`, and base64 of the whole text are accepted too. Raises
    ValueError with `cause; remedy`.
    """
    bodies = _CERTIFICATE.findall(_text(value).replace("\\r", "").replace("\\n", "\n"))
    if not bodies:
        raise ValueError(_problem(value))
    pem = "".join(map(_block, bodies))
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(f"contains a certificate that cannot be read; {_EXAMPLE}, unchanged") from error
    return pem


def _block(body: str) -> str:
    lines = textwrap.wrap("".join(body.split()), 64)
    return "\n".join(("-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""))


def _text(value: str) -> str:
    if "-----BEGIN" in value:
        return value
    try:
        return base64.b64decode("".join(value.split()), validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return value


def _problem(value: str) -> str:
    text = _text(value)
    if "PRIVATE KEY-----" in text:
        return "contains a private key instead of a certificate; give the root certificate, and keep the private key secret"
    if "BEGIN TRUSTED CERTIFICATE" in text:
        return "is in OpenSSL's TRUSTED CERTIFICATE format; convert it with `openssl x509 -in FILE -out root.pem`"
    if len(value) < 500 and re.fullmatch(r"(?:[A-Za-z]:)?[\w./\\~ -]*\.(?:pem|crt|cer|ca-bundle)", value):
        return f"is a file name; {_EXAMPLE}, or set SSL_CERT_FILE to the file"
    return f"does not contain a PEM certificate; {_EXAMPLE}"
