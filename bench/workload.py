"""The load of the servers: tokens as GitHub signs them, each used once, all signed before the clock starts."""

import base64
import json
import multiprocessing
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from itertools import chain

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from mock_idp.claims import id_token_claims
from mock_idp.job import Job
from mock_idp.signing_keys import SigningKey, base64url, compact_json

REPOSITORIES = tuple(f"octo-org/agent-{number}" for number in range(10))
AUDIENCE = "https://idp.example.com"
CLIENT_ID = "octo-org-agents"
_JOBS = tuple(Job(repository=repository, environment="production") for repository in REPOSITORIES)
_BATCH = 250


class TokenKind(Enum):
    """The kind of token that a server takes: all have the same size and signature."""

    GITHUB = "GitHub ID token"
    ASSERTION = "client assertion"
    """GitHub's claims as a client assertion (RFC 7523, section 3)."""


def describe(token: str) -> str:
    """Return the number of a token's claims and its size, for the report."""
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return f"{len(claims)} claims, {len(token):,} bytes"


def _claims(job: Job, issuer: str, kind: TokenKind) -> dict[str, object]:
    now, jti = int(time.time()), str(uuid.uuid4())
    claims = id_token_claims(job, issuer=issuer, audience=AUDIENCE, now=now, jti=jti)
    return claims | ({"iss": CLIENT_ID, "sub": CLIENT_ID} if kind is TokenKind.ASSERTION else {})


@dataclass(frozen=True, slots=True)
class _Signer:
    """The key and issuer with which a process signs."""

    key: SigningKey
    issuer: str

    def token(self, job: Job, kind: TokenKind) -> str:
        """Return a new token with a unique `jti`."""
        parts = (self.key.header(), _claims(job, self.issuer, kind))
        signing_input = ".".join(base64url(compact_json(part).encode()) for part in parts)
        return f"{signing_input}.{base64url(self.key.sign(signing_input.encode()))}"


class Mint:
    """Signs tokens on all cores."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def tokens(self, kind: TokenKind, count: int) -> Sequence[str]:
        """Return at least `count` tokens, of ten repositories in turn, valid for five minutes from now."""
        batches = -(-count // _BATCH)
        return list(chain.from_iterable(self._pool.map(_batch, [kind] * batches)))


@contextmanager
def mint(key: SigningKey, issuer: str) -> Iterator[Mint]:
    """Start processes that sign with the issuer's key, for the block."""
    pem = key.private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with ProcessPoolExecutor(
        os.cpu_count(),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_prepare,
        initargs=(pem, key.kid, key.certificate, issuer),
    ) as pool:
        yield Mint(pool)


_SIGNERS: list[_Signer] = []
"""The signer of this process, which belongs to the pool."""


def _prepare(pem: bytes, kid: str, certificate: bytes, issuer: str) -> None:
    private = serialization.load_pem_private_key(pem, None)
    if not isinstance(private, RSAPrivateKey):
        raise TypeError("GitHub signs with RSA keys only")
    _SIGNERS.append(_Signer(SigningKey(private, kid, certificate), issuer))


def _batch(kind: TokenKind) -> list[str]:
    jobs = (_JOBS[number % len(_JOBS)] for number in range(_BATCH))
    return [_SIGNERS[0].token(job, kind) for job in jobs]
