"""The catalogue of hostile and malformed ID tokens, each with its attack, for the tests of the token reader and the API."""

import base64
import json

import jwt

NOW = 1_795_521_700
ISSUER = "https://token.actions.githubusercontent.com"
AUDIENCE = "https://idp.example"
"""The only accepted `aud`."""

HEADER = {
    "alg": "RS256",
    "kid": "38826b17-6a30-5f9b-b169-8beb8202f723",
    "typ": "JWT",
    "x5t": "ykNaY4qM_ta4k2TgZOCEYLkcYlA",
}
CLAIMS = {
    "actor": "octocat",
    "actor_id": "42",
    "aud": AUDIENCE,
    "base_ref": "",
    "check_run_id": "5",
    "event_name": "push",
    "exp": NOW + 300,
    "head_ref": "",
    "iat": NOW,
    "iss": ISSUER,
    "job_workflow_ref": "acme/api/.github/workflows/ci.yml@refs/heads/main",
    "job_workflow_sha": "a" * 40,
    "jti": "0f1c2a36-96e2-4f35-9f3c-3a4d5f6b7c8d",
    "nbf": NOW - 300,
    "ref": "refs/heads/main",
    "ref_protected": "true",
    "ref_type": "branch",
    "repository": "acme/api",
    "repository_id": "101",
    "repository_owner": "acme",
    "repository_owner_id": "7",
    "repository_visibility": "private",
    "run_attempt": "1",
    "run_id": "99",
    "run_number": "3",
    "runner_environment": "github-hosted",
    "sha": "a" * 40,
    "sub": "repo:acme/api:ref:refs/heads/main",
    "workflow": "CI \u2014 build",
    "workflow_ref": "acme/api/.github/workflows/ci.yml@refs/heads/main",
    "workflow_sha": "a" * 40,
}

REQUIRED_STRINGS = (
    "sub",
    "aud",
    "jti",
    "repository",
    "repository_id",
    "repository_owner_id",
    "ref",
    "event_name",
)
REQUIRED_TIMES = ("exp", "iat", "nbf")
"""The claims that every ID token must have, written out so that the product is not tested against its own list."""


def _base64url(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def _part(usual, changes):
    if isinstance(changes, bytes):
        return changes
    members = {**usual, **changes}
    return json.dumps({name: value for name, value in members.items() if value is not ...}).encode()


def mint(key, header=None, claims=None, *, alg="RS256"):
    """Sign a token; `header` and `claims` override the usual ones (`...` removes one), or replace them as bytes."""
    parts = (_part(HEADER, header or {}), _part(CLAIMS, claims or {}))
    signing_input = ".".join(map(_base64url, parts)).encode()
    signature = jwt.get_algorithm_by_name(alg).sign(signing_input, key)
    return f"{signing_input.decode()}.{_base64url(signature)}"


MALFORMED_TEXT = [
    # attack, change to a genuine token
    ("too long", lambda token: token + "A" * 16_384),
    ("empty", lambda _: ""),
    ("one part", lambda token: token.partition(".")[0]),
    ("two parts", lambda token: token.rpartition(".")[0]),
    ("B14 five parts", lambda token: f"{token}.AAAA.AAAA"),
    ("empty header", lambda token: "." + token.partition(".")[2]),
    ("empty payload", lambda token: f"{token.split('.')[0]}..{token.split('.')[2]}"),
    ("B1 empty signature", lambda token: token.rpartition(".")[0] + "."),
    ("B8 newline at the end", lambda token: token + "\n"),
    ("B8 blank before", lambda token: " " + token),
    ("B8 padding", lambda token: token + "=="),
    ("B8 standard alphabet", lambda token: token[:-4] + "+/+/"),
    ("B8 length no base64 has", lambda token: token.rpartition(".")[0] + ".AAAAA"),
    ("B8 unused bits", lambda token: token.rpartition(".")[0] + ".AB"),
    ("B8 unused bits in the header", lambda token: "e30B" + "." + token.partition(".")[2]),
    ("a letter that is not ASCII", lambda token: token.replace("A", "\u0410", 1)),
    ("surrogate", lambda token: token + "\ud800"),
    ("NUL at the end", lambda token: token + "\x00"),
    ("scheme before the token", lambda token: "Bearer " + token),
]


def _deep(levels):
    return b'{"a":' + b"[" * levels + b"]" * levels + b"}"


MALFORMED_PARTS = [
    # Attack, and header and claims as for `mint`.
    *[
        (f"B2/B13/B14 {name}", {name: "x"}, {})
        for name in ("jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "enc")
    ],
    ("B2 jwk as an object", {"jwk": {"kty": "oct"}}, {}),
    ("B13 empty crit", {"crit": []}, {}),
    ("B13 null crit", {"crit": None}, {}),
    ("B3 no kid", {"kid": ...}, {}),
    ("B3 empty kid", {"kid": ""}, {}),
    ("B3 kid of a number", {"kid": 1}, {}),
    ("B3 kid of a list", {"kid": [HEADER["kid"]]}, {}),
    ("B3 kid as a path", {"kid": "../../etc/passwd"}, {}),
    ("B3 kid with SQL", {"kid": "x' OR 1=1"}, {}),
    ("B3 kid with a newline", {"kid": f"{HEADER['kid']}\n"}, {}),
    ("B3 kid too long", {"kid": "x" * 129}, {}),
    ("B11 header twice", b'{"alg":"RS256","alg":"none","kid":"k"}', {}),
    ("B11 claim twice", {}, b'{"aud":"a","aud":"b"}'),
    ("B11 claim twice, once escaped", {}, b'{"aud":"a","\\u0061ud":"b"}'),
    ("B11 nested twice", {}, b'{"x":{"a":1,"a":2}}'),
    ("B11 half a surrogate pair", {}, b'{"sub":"\\ud800"}'),
    ("B11 half a pair in a name", {}, b'{"\\udc00":"x"}'),
    ("B22 NUL in the repository", {}, {"repository": "acme/api\x00"}),
    ("B22 NUL in a claim that nothing reads", {}, {"new": "\x00"}),
    ("B22 NUL in a list", {}, {"new": [{"a": "x\x00"}]}),
    ("B22 NUL in a name", {}, {"\x00": "x"}),
    ("payload is not UTF-8", {}, b'{"sub":"\xff"}'),
    ("byte order mark before the payload", {}, b'\xef\xbb\xbf{"sub":"x"}'),
    ("overlong UTF-8 in the payload", {}, b'{"sub":"\xc0\xaf"}'),
    ("control character in the payload", {}, b'{"sub":"a\nb"}'),
    ("comment in the payload", {}, b'{"sub":"x"/**/}'),
    ("text after the payload", {}, b'{"sub":"x"}{}'),
    ("payload is a list", {}, b"[]"),
    ("payload is a text", {}, b'"x"'),
    ("header is null", b"null", {}),
    ("header is a list", b"[]", {}),
    ("header is an empty object", b"{}", {}),
    ("B10 deep", {}, _deep(9)),
    ("B10 very deep", {}, _deep(5000)),
    ("B10 deep header", _deep(5000), {}),
    ("B10 never closed", {}, b"[" * 10_000),
    ("B10 101 members of the header", {f"c{number}": "x" for number in range(101)}, {}),
    ("ref of more than 4096 characters", {}, {"ref": "refs/heads/" + "x" * 4097}),
    ("jti of more than 4096 characters", {}, {"jti": "x" * 4097}),
    ("B10 NaN", {}, b'{"exp":NaN}'),
    ("B10 Infinity", {}, b'{"exp":Infinity}'),
    ("B10 -Infinity", {}, b'{"exp":-Infinity}'),
    ("B10 overflow", {}, b'{"exp":1e400}'),
    ("B10 huge integer", {}, b'{"exp":' + b"9" * 5000 + b"}"),
    *[
        (f"B12 {name} {value!r}", {}, {name: value})
        for name in ("exp", "iat", "nbf")
        for value in (str(NOW), float(NOW), True, None, [NOW], {}, -1, 253402300710, 2**40 + 1)
    ],
    *[
        (f"wrong type {name} {value!r}", {}, {name: value})
        for name, value in [
            ("iss", 1),
            ("iss", None),
            ("sub", 1),
            ("sub", None),
            ("aud", 1),
            ("aud", None),
            ("aud", {"a": 1}),
            ("jti", 1),
            ("repository", ["acme/api"]),
            ("repository_id", 101),
            ("repository_owner_id", 7),
            ("ref", None),
            ("ref", 1),
            ("event_name", False),
            ("ref_type", 1),
            ("sha", 1),
            ("environment", None),
            ("environment", ["prod"]),
            ("workflow_ref", {}),
            ("job_workflow_ref", 1),
            ("actor_id", 42),
            ("runner_environment", True),
            ("repository_visibility", None),
            ("run_id", 99),
            ("run_attempt", 1),
            ("workflow_sha", 1),
            ("job_workflow_sha", ["a"]),
            ("check_run_id", 7),
        ]
    ],
]


OTHER_REASONS = [
    # attack, header, claims, reason
    ("B15 our own access token", {"typ": "at+jwt"}, {}, "wrong_type"),
    ("B15 with its media type", {"typ": "application/at+jwt"}, {}, "wrong_type"),
    ("B15 other case", {"typ": "jwt"}, {}, "wrong_type"),
    ("B15 empty typ", {"typ": ""}, {}, "wrong_type"),
    ("B15 null typ", {"typ": None}, {}, "wrong_type"),
    ("B15 typ of a list", {"typ": ["JWT"]}, {}, "wrong_type"),
    *[
        (f"B1 alg {alg!r}", {"alg": alg}, {}, "algorithm_not_allowed")
        for alg in (
            "none",
            "None",
            "",
            "rs256",
            "RS256 ",
            "HS256",
            "RS384",
            "RS512",
            "PS256",
            "ES256",
            "EdDSA",
            None,
            ...,
        )
    ],
    ("B1 alg of a list", {"alg": ["RS256"]}, {}, "algorithm_not_allowed"),
    ("B17 absent", {}, {"iss": ...}, "wrong_issuer"),
    ("B17 empty", {}, {"iss": ""}, "wrong_issuer"),
    ("B17 slash at the end", {}, {"iss": "https://token.actions.githubusercontent.com/"}, "wrong_issuer"),
    ("B17 case", {}, {"iss": "https://token.actions.GitHubUserContent.com"}, "wrong_issuer"),
    ("B17 prefix", {}, {"iss": "https://token.actions.githubusercontent.com.evil.example"}, "wrong_issuer"),
    ("B17 part", {}, {"iss": "token.actions.githubusercontent.com"}, "wrong_issuer"),
    ("A17 enterprise", {}, {"iss": "https://token.actions.githubusercontent.com/acme"}, "wrong_issuer"),
    ("B3 unknown kid", {"kid": "x" * 128}, {}, "unknown_key"),
    *[(f"missing {name}", {}, {name: ...}, "missing_claim") for name in (*REQUIRED_STRINGS, *REQUIRED_TIMES)],
    *[(f"empty {name}", {}, {name: ""}, "missing_claim") for name in REQUIRED_STRINGS if name != "ref"],
    ("A3 a cloud's audience", {}, {"aud": "sts.amazonaws.com"}, "wrong_audience"),
    ("A3 GitHub's default", {}, {"aud": "https://github.com/acme"}, "wrong_audience"),
    ("A2 list with ours", {}, {"aud": ["https://idp.example"]}, "wrong_audience"),
    ("A2 list with ours and another", {}, {"aud": ["x", "https://idp.example"]}, "wrong_audience"),
    ("A2 empty list", {}, {"aud": []}, "wrong_audience"),
    ("A2 slash at the end", {}, {"aud": "https://idp.example/"}, "wrong_audience"),
    ("A2 case", {}, {"aud": "https://IDP.example"}, "wrong_audience"),
    ("A2 longer", {}, {"aud": "https://idp.example.evil"}, "wrong_audience"),
]


TIMES = [
    # times relative to now, reason (None: accepted); `exp` is exclusive, the leeway is 30 s
    ({"exp": -29}, None),
    ({"exp": -30}, "expired"),
    ({"exp": -31}, "expired"),
    ({"nbf": 30}, None),
    ({"nbf": 31}, "not_yet_valid"),
    ({"iat": 30}, None),
    ({"iat": 31}, "not_yet_valid"),
    ({"iat": -599}, None),
    ({"iat": -600}, None),
    ({"iat": -601}, "too_old"),
    ({"iat": -601, "exp": 21_600}, "too_old"),
    ({"iat": -601, "exp": -30}, "expired"),
    ({"iat": 31, "exp": -30}, "expired"),
    ({"iat": -601, "nbf": 31}, "not_yet_valid"),
]
