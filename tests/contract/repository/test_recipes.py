"""The shell recipes in the documents: they keep secrets private and show the provider's errors."""

import re

from kit.processes import ROOT, tracked_files

FENCE = re.compile(r"^```\w*\n.*?^```", re.DOTALL | re.MULTILINE)
SECRET_FILE = re.compile(
    r"pg_dump -|sqlite3 .*(?:\.backup|\.dump)|\bcp \S*\.db|VACUUM INTO"
    r"|(?:openssl (?:rand|gen)|admin-token|clients (?:create|rotate)|audit export|base64)[^|\n]*>\s*[\w~./$\"]"
    r"|>\s*\S+\.(?:key|pem|token|secret|env|db|sql|dump)\b"
)
CURL = re.compile(r"\bcurl (?:-|\"|\$|https?:).*")
PASSWORD_IN_AN_ARGUMENT = re.compile(r"--(?:to|from|database-url|dbname)[ =]\S*://[^\s:@/]*:[^\s@]+@")


def texts():
    """The texts of manuals, manifests and scripts, by name."""
    return {name: (ROOT / name).read_text() for name in tracked_files("*.md", "*.yaml", "*.yml", "*.sh")}


def recipes(text):
    """The units that are run together: each fenced block, and each line outside them."""
    return [*FENCE.findall(text), *FENCE.sub("", text).splitlines()]


def test_what_writes_a_secret_sets_the_umask():
    """A recipe that writes a secret sets the umask: the usual 022 makes files readable for everybody."""
    found = [
        (name, recipe)
        for name, text in texts().items()
        for recipe in recipes(text)
        if SECRET_FILE.search(recipe)
    ]
    assert {name for name, _ in found} >= {"README.md", "docs/operations.md"}
    assert [(name, recipe) for name, recipe in found if "umask 077" not in recipe] == []


def test_no_password_is_an_argument():
    """No recipe passes a password as an argument, which every user of the machine can read."""
    every = texts()
    assert "docs/operations.md" in every
    assert [name for name, text in every.items() if PASSWORD_IN_AN_ARGUMENT.search(text)] == []


def test_curl_shows_why_the_provider_refuses():
    """Recipes use `curl --fail-with-body`: `curl -f` drops the provider's explanation, and plain curl exits with 0."""
    curls = [(name, command) for name, text in texts().items() for command in CURL.findall(text)]
    assert {name for name, _ in curls} >= {
        "README.md",
        "docs/audit.md",
        "examples/workflows/issue.yml",
        "mock_idp/README.md",
        "tests/contract/actions/messages.md",
    }
    assert [(name, command) for name, command in curls if "--fail-with-body" not in command] == []
