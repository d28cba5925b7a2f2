"""`keys rotate` under load: every token verifies with each replica's published keys and with services' libraries."""

import json
import runpy
import subprocess
import threading
import time
from bisect import bisect_left, bisect_right
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import jwt
import pytest
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet

from kit.node import beside_jose
from kit.processes import ROOT
from kit.tokens import kid_of

pytestmark = pytest.mark.xdist_group("faults")

PYJWT_EXAMPLE = ROOT / "examples" / "verify" / "access_token.py"
JWKS = "/.well-known/jwks.json"
SOME = 40
ROTATIONS = 2


class PyJwt:
    """PyJWT's JWKS client, used as in docs/verify-tokens.md."""

    def __init__(self, url, issuer):
        self.fetches = 0
        self._issuer = issuer
        self._verify = runpy.run_path(str(PYJWT_EXAMPLE))["verify"]
        # Without the cooldown after a fetch: the test rotates keys within seconds, a provider within months.
        self._keys = jwt.PyJWKClient(url, cooldown_duration=0)
        fetch = self._keys.fetch_data

        def counted():
            self.fetches += 1
            return fetch()

        self._keys.fetch_data = counted

    def verify(self, token):
        self._verify(token, self._keys, self._issuer, self._issuer)


class Joserfc:
    """joserfc, with which the service itself fetches the keys again for an unknown `kid`."""

    def __init__(self, url, issuer):
        self.fetches = 0
        self._url = url
        self._claims = joserfc_jwt.JWTClaimsRegistry(
            iss={"essential": True, "value": issuer}, aud={"essential": True, "value": issuer}
        )
        self._fetch()

    def verify(self, token):
        if kid_of(token) not in self._kids:
            self._fetch()
        self._claims.validate(joserfc_jwt.decode(token, self._keys, algorithms=["ES256"]).claims)

    def _fetch(self):
        self.fetches += 1
        published = httpx.get(self._url, trust_env=False, verify=False).raise_for_status().json()
        self._keys = KeySet.import_key_set(published)
        self._kids = {key["kid"] for key in published["keys"]}


class Jose:
    """npm's jose in a Node process."""

    def __init__(self, program, url, issuer):
        self.fetches = 0
        command = ["node", program, url, issuer]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def verify(self, token):
        print(token, file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        self.fetches = answer["fetches"]
        assert answer["error"] is None, answer["error"]


@pytest.fixture(scope="session")
def jose_program(tmp_path_factory):
    """The Node program, next to its only dependency."""
    return beside_jose(Path(__file__).with_name("verify-with-jose.mjs"), tmp_path_factory.mktemp("jose"))


@pytest.fixture(params=["python", pytest.param("node", marks=pytest.mark.node)])
def verifiers(request, provider):
    """Services that verify tokens with the last replica's keys."""
    url = f"{provider.replicas[-1].url}{JWKS}"
    if request.param == "python":
        yield [PyJwt(url, provider.issuer), Joserfc(url, provider.issuer)]
        return
    jose = Jose(request.getfixturevalue("jose_program"), url, provider.issuer)
    with jose.process:
        yield [jose]
        jose.process.stdin.close()


class Published:
    """One replica's published keys over time: the times of each request and response, and the keys by `kid`."""

    def __init__(self, client):
        self._client = client
        self._asked, self._answered, self._keys = [], [], []

    def look(self):
        self._asked.append(time.monotonic())
        published = self._client.get(JWKS).raise_for_status().json()
        self._answered.append(time.monotonic())
        self._keys.append({key["kid"]: key for key in published["keys"]})

    def watch(self, ended):
        while not ended.wait(0.05):
            self.look()
        self.look()

    def around(self, attempt):
        """The last keys before an exchange's request, and the first keys after its response."""
        before = bisect_right(self._answered, attempt.at - attempt.seconds) - 1
        after = bisect_left(self._asked, attempt.at)
        assert 0 <= before < after
        return self._keys[before], self._keys[after]


@contextmanager
def _watched(replicas):
    """Poll the published keys of each replica during the body of the `with`."""
    ended = threading.Event()
    with ExitStack() as clients, ThreadPoolExecutor(len(replicas)) as pool:
        published = [Published(clients.enter_context(it.client())) for it in replicas]
        for one in published:
            one.look()
        watching = [pool.submit(one.watch, ended) for one in published]
        try:
            yield published
        finally:
            ended.set()
        for one in watching:
            one.result()


def _follow(load, verifier):
    """Verify every token as soon as it is issued; return the jobs by signing key."""
    accepted = defaultdict(list)
    for job in load.issued():
        verifier.verify(job.issued)
        accepted[kid_of(job.issued)].append(job)
    return accepted


def test_no_token_fails_while_keys_rotate(provider, verifiers, request):
    """Every replica publishes a key before it signs and after it is retired, so services may cache the keys."""
    following = ThreadPoolExecutor(len(verifiers))
    with _watched(provider.replicas) as published, following, provider.load() as load:
        followers = [following.submit(_follow, load, verifier) for verifier in verifiers]
        load.run(SOME)
        for _ in range(ROTATIONS):
            provider.command("keys", "rotate")
            load.run(SOME)

    assert load.outcomes().keys() == {(200, None)}
    for verifier, follower in zip(verifiers, followers, strict=True):
        accepted = follower.result()
        assert sum(map(len, accepted.values())) == len(load.jobs)
        assert len(accepted) == ROTATIONS + 1
        # One fetch returns the active key and the next one.
        assert verifier.fetches <= 1 + ROTATIONS // 2
    for replica in published:
        for kid, jobs in accepted.items():
            for job in jobs:
                _check(job, kid, *replica.around(job.attempts[-1]))
    fetches = ", ".join(f"{type(it).__name__} fetched {it.fetches} times" for it in verifiers)
    provider.assert_sound(load, f"{request.node.name}: {len(accepted)} keys, {fetches}")


def _check(job, kid, before, after):
    """Assert that the token's key was published before and after the exchange, and that the signature is valid."""
    assert before[kid] == after[kid]
    key = jwt.PyJWK.from_dict(after[kid])
    jwt.decode(job.issued, key, algorithms=["ES256"], options={"verify_aud": False})
