"""The rules for HTTPS_PROXY, ALL_PROXY and NO_PROXY, as rows with which every program of this project is tested."""

PROXY = "http://proxy.example:3128"

CHOSEN = [
    ({}, None),
    ({"HTTPS_PROXY": "", "ALL_PROXY": ""}, None),
    ({"HTTP_PROXY": PROXY}, None),
    ({"HTTPS_PROXY": PROXY}, PROXY),
    ({"https_proxy": PROXY, "HTTPS_PROXY": "http://other.example"}, PROXY),
    ({"ALL_PROXY": PROXY}, PROXY),
    ({"ALL_PROXY": "http://other.example", "HTTPS_PROXY": PROXY}, PROXY),
    ({"HTTPS_PROXY": PROXY, "all_proxy": "socks5://127.0.0.1:7891"}, PROXY),
    ({"HTTPS_PROXY": "proxy.example:3128"}, PROXY),
    ({"HTTPS_PROXY": f"{PROXY}/"}, f"{PROXY}/"),
    ({"HTTPS_PROXY": "https://proxy.example"}, "https://proxy.example"),
    ({"HTTPS_PROXY": "http://proxy.example:1"}, "http://proxy.example:1"),
    ({"HTTPS_PROXY": "http://proxy.example:65535"}, "http://proxy.example:65535"),
    ({"HTTPS_PROXY": "http://[::1]:3128"}, "http://[::1]:3128"),
    ({"HTTPS_PROXY": "http://user:p%23x@proxy.example:3128"}, PROXY),
]
"""Variables, and the proxy that they select."""

UNUSABLE = [
    "socks5://user:hunter2@127.0.0.1:1080",
    "SOCKS5H://user:hunter2@127.0.0.1:1080",
    "ftp://user:hunter2@proxy.example",
    "http://user:hunter2#x@proxy.example:3128",
    "http://user:1?hunter2@proxy.example:3128",
    "http://user:1/hunter2@proxy.example:3128",
    "http://proxy.example:3128/proxy.pac",
    "http://proxy.example:3128?x",
    "http://proxy.example:3128/?x",
    "http://proxy.example:3128#x",
    "http://",
    "://proxy.example",
    "http://proxy.example:0",
    "http://proxy.example:65536",
    "http://proxy.example:99999",
    "http://proxy.example:-1",
    "http://proxy.example:port",
    "http://[::1",
    "a b",
    "http://pröxy.example",
    "/var/run/proxy.sock",
]
"""Values that are not the address of an HTTP proxy; some contain a password, which no message may show."""

EXCEPTED = [
    ("", "idp.example.com", False),
    ("*", "idp.example.com", True),
    ("idp.example.com", "idp.example.com", True),
    ("IDP.Example.com", "idp.example.com", True),
    ("example.com", "idp.example.com", True),
    (".example.com", "idp.example.com", True),
    ("*.example.com", "idp.example.com", True),
    ("ample.com", "idp.example.com", False),
    ("other.example, idp.example.com", "idp.example.com", True),
    ("other.example idp.example.com", "idp.example.com", True),
    ("idp.example.com:443", "idp.example.com", True),
    ("idp.example.com:8443", "idp.example.com", False),
    ("idp.example.com:8443", "idp.example.com:8443", True),
    ("10.0.0.0/8", "10.1.2.3", True),
    ("10.0.0.0/8", "11.1.2.3", False),
    ("10.1.2.3", "10.1.2.3", True),
    ("10.1.2.3:443", "10.1.2.3", True),
    ("fd00::/8", "[fd00::1]", True),
    ("fd00::/8", "[fe80::1]", False),
    ("[fd00::1]", "[fd00::1]", True),
    ("[fd00::1]:443", "[fd00::1]", True),
    ("fd00::1", "[fd00::1]", True),
]
"""NO_PROXY, the host of an https URL, and whether the host bypasses the proxy."""

IGNORED = [
    "fd07:b51a:cc66:f0::/64",
    "[::1]",
    "::1/128",
    ".corp:8080,foo:*",
    "http://x:bad",
    "[",
    "192.168.*.*",
    "1.2.3.4/99",
    "é",
]
"""NO_PROXY entries that OrbStack, Docker and others write (encode/httpx#3221): they match no name and are not an error."""

THIS_MACHINE = [
    "http://127.0.0.1:3000",
    "http://127.0.0.9",
    "http://localhost",
    "https://localhost:3000",
    "https://127.0.0.9",
    "https://[::1]",
]
"""URLs that never use a proxy."""
