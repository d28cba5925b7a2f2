"""The mock runs on Linux, macOS and Windows: its source uses nothing that only POSIX has."""

import ast
from pathlib import Path

import pytest

import mock_idp

SOURCES = sorted(Path(mock_idp.__file__).parent.rglob("*.py"))
# Modules, and names in `os`, `signal` and `socket`, that Windows lacks.
POSIX_MODULES = {
    "crypt",
    "curses",
    "fcntl",
    "grp",
    "posix",
    "pty",
    "pwd",
    "readline",
    "resource",
    "syslog",
    "termios",
    "tty",
}
POSIX_NAMES = {
    "chown", "fchmod", "fork", "forkpty", "getegid", "geteuid", "getgid", "getpgid", "getuid", "kill", "killpg", "mkfifo",
    "nice", "setgid", "setpgid", "setsid", "setuid", "uname", "SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGUSR1",
    "SIGUSR2", "AF_UNIX", "SO_REUSEPORT",
}  # fmt: skip
POSIX_ARGUMENTS = {"preexec_fn", "start_new_session", "process_group"}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_no_module_needs_posix(source):
    """No module imports a POSIX module or uses a POSIX name or argument of the standard library."""
    tree = ast.parse(source.read_text("utf-8"))

    imported = {
        alias.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    imported |= {
        (node.module or "").partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
    }
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in {"os", "signal", "socket"}
    }
    given = {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    assert not imported & POSIX_MODULES
    assert not used & POSIX_NAMES
    assert not given & POSIX_ARGUMENTS


def test_the_sources_were_found():
    """The check above must have found the source files."""
    assert {"main", "wsgi_server", "docker_engine"} <= {source.stem for source in SOURCES}
