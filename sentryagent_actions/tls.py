"""The certificates that the actions trust, and the causes of a failed TLS handshake."""

import ssl
from enum import Enum, auto

import httpx

from sentryagent_actions.untrusted import one_line


class TlsProblem(Enum):
    """The cause of a TLS failure; `errors` has a message and a remedy for each."""

    UNTRUSTED = auto()
    EXPIRED = auto()
    NOT_YET_VALID = auto()
    OTHER_NAME = auto()
    INVALID = auto()
    NO_TLS = auto()
    CLIENT_CERTIFICATE = auto()
    OLD_VERSION = auto()


# X509_V_ERR_… in OpenSSL's x509_vfy.h.
_BY_VERIFY_CODE = {
    2: TlsProblem.UNTRUSTED,
    9: TlsProblem.NOT_YET_VALID,
    10: TlsProblem.EXPIRED,
    18: TlsProblem.UNTRUSTED,
    19: TlsProblem.UNTRUSTED,
    20: TlsProblem.UNTRUSTED,
    21: TlsProblem.UNTRUSTED,
    62: TlsProblem.OTHER_NAME,
    64: TlsProblem.OTHER_NAME,
}
_BY_REASON = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": TlsProblem.CLIENT_CERTIFICATE,
    "TLSV1_ALERT_PROTOCOL_VERSION": TlsProblem.OLD_VERSION,
    "UNSUPPORTED_PROTOCOL": TlsProblem.OLD_VERSION,
    "NO_PROTOCOLS_AVAILABLE": TlsProblem.OLD_VERSION,
    "WRONG_SSL_VERSION": TlsProblem.OLD_VERSION,
    # A TLS 1.2 server sends this alert for a missing client certificate, and also if there is no common cipher.
    "SSLV3_ALERT_HANDSHAKE_FAILURE": TlsProblem.CLIENT_CERTIFICATE,
}


def find_failure(error: BaseException) -> tuple[TlsProblem, str] | None:
    """Return the TLS failure that caused an error and OpenSSL's message, or `None` if another error caused it."""
    cause: BaseException | None = error
    while cause is not None:
        # A connection that ends during the handshake is a network failure, not a bad certificate.
        if isinstance(cause, ssl.SSLError) and not isinstance(
            cause, ssl.SSLEOFError | ssl.SSLZeroReturnError
        ):
            return _problem(cause), _words(cause)
        cause = cause.__cause__ or cause.__context__
    return None


def _words(error: ssl.SSLError) -> str:
    reason = (getattr(error, "reason", None) or "").replace("_", " ").lower()
    return one_line(getattr(error, "verify_message", "") or reason or str(error)).rstrip(".")


def _problem(error: ssl.SSLError) -> TlsProblem:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _BY_VERIFY_CODE.get(getattr(error, "verify_code", 20), TlsProblem.INVALID)
    # OpenSSL has many names for data that is not TLS: WRONG_VERSION_NUMBER, RECORD_LAYER_FAILURE, PACKET_LENGTH_TOO_LONG.
    return _BY_REASON.get(getattr(error, "reason", None) or "", TlsProblem.NO_TLS)


def trust(ca_certificate: str) -> ssl.SSLContext:
    """Return a context that trusts the system's roots (SSL_CERT_FILE, SSL_CERT_DIR) and `ca_certificate` (PEM).

    A Python without its own roots, for example python.org's for macOS, uses certifi's. Raises OSError.
    """
    context = ssl.create_default_context()
    found = ssl.get_default_verify_paths()
    if not (found.cafile or found.capath or context.cert_store_stats()["x509_ca"]):
        context = httpx.create_ssl_context(trust_env=False)
    if ca_certificate:
        context.load_verify_locations(cadata=ca_certificate)
    return context
