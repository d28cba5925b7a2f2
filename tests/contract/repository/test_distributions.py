"""The distributions that `make wheels` builds: each alone, all together, and next to a user's own code."""

import re
import shutil
import subprocess
import sys
import tomllib
import venv
from importlib import metadata
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
# Folder: distribution, package, command, entry points.
DISTRIBUTIONS = {
    "server": ("sentryagent-idp", "sentryagent_idp", "sentryagent-idp", {"console_scripts"}),
    "mock_idp": ("sentryagent-mock-idp", "mock_idp", "mock-idp", {"console_scripts", "pytest11"}),
    "sentryagent_actions": (
        "sentryagent-actions",
        "sentryagent_actions",
        "sentryagent-actions",
        {"console_scripts"},
    ),
}
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

pytestmark = pytest.mark.xdist_group("wheels")
every_distribution = pytest.mark.parametrize("folder", DISTRIBUTIONS)


def run(*words, **options):
    done = subprocess.run([str(it) for it in words], capture_output=True, text=True, timeout=120, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make_wheels(folder):
    """Run `make wheels` in a copy of the repository, with this environment; return the wheels by source folder."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in listed.rstrip("\0").split("\0"):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    run("make", f"VENV={sys.prefix}", f"--old-file={sys.prefix}/.run", "wheels", cwd=folder)
    return {
        source: folder / "dist" / "wheels" / f"{name.replace('-', '_')}-{VERSION}-py3-none-any.whl"
        for source, (name, *_) in DISTRIBUTIONS.items()
    }


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    return make_wheels(tmp_path_factory.mktemp("wheels"))


class Environment:
    """A clean virtual environment."""

    def __init__(self, folder):
        venv.create(folder, symlinks=True)
        self.bin = folder / "bin"
        [self.packages] = (folder / "lib").glob("python3*/site-packages")

    def provide(self, *requirements):
        """Link only these requirements and their dependencies from the tests' environment."""
        for name in closure(map(Requirement, requirements)):
            files = metadata.distribution(name).files
            for entry in {file.parts[0] for file in files} - {"..", "__pycache__"}:
                if not (self.packages / entry).exists():
                    (self.packages / entry).symlink_to(metadata.distribution(name).locate_file(entry))

    def install(self, *wheels):
        for wheel in wheels:
            self.provide(*requires(wheel))
        self.pip("install", "--no-deps", "--no-index", *wheels)

    def pip(self, *words):
        python = self.bin / "python"
        run(sys.executable, "-m", "pip", "--python", python, "-q", "--disable-pip-version-check", *words)

    def content(self):
        names = {path.name for folder in (self.bin, self.packages) for path in folder.iterdir()}
        return names - {"__pycache__"}

    def version(self, folder):
        return run(self.bin / DISTRIBUTIONS[folder][2], "--version")


@pytest.fixture
def environment(tmp_path):
    return Environment(tmp_path / "venv")


@pytest.fixture(scope="module")
def users_environment(wheels, tmp_path_factory):
    """An environment with all distributions and pytest."""
    environment = Environment(tmp_path_factory.mktemp("user") / "venv")
    environment.provide("pytest")
    environment.install(*wheels.values())
    return environment


def requires(wheel):
    """The requirements in a wheel's metadata."""
    with ZipFile(wheel) as archive:
        [name] = [it for it in archive.namelist() if it.endswith(".dist-info/METADATA")]
        asked = re.findall(r"^Requires-Dist: (.*)$", archive.read(name).decode(), re.MULTILINE)
    assert asked
    return asked


def closure(requirements, found=frozenset()):
    """The names of these requirements and of all their dependencies on this machine."""
    for requirement in requirements:
        name = canonicalize_name(requirement.name)
        if name not in found:
            found |= {name}
            asked = map(Requirement, metadata.requires(name) or ())
            found = closure([it for it in asked if applies(it, requirement.extras)], found)
    return found


def applies(requirement, extras):
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def shown(folder):
    return f"{DISTRIBUTIONS[folder][2]}, version {VERSION}\n"


def test_three_distributions_are_written_and_each_is_built_installed_and_locked(wheels):
    """Each folder with a pyproject.toml is a distribution, which the Makefile builds and the lock script locks."""
    folders = {path.parent.name for path in ROOT.glob("*/pyproject.toml")}
    [built] = re.findall(r"^DISTRIBUTIONS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    [locked] = re.findall(r"^ALL = (.*)$", (ROOT / "requirements" / "lock.py").read_text(), re.MULTILINE)

    assert folders == DISTRIBUTIONS.keys() == set(built.split())
    assert set(re.findall(r'"(.+?)"', locked)) == folders | {"."}
    assert set(wheels["server"].parent.iterdir()) == set(wheels.values())


def test_the_same_sources_give_the_same_bytes(wheels, tmp_path):
    """The wheels are reproducible: they do not depend on the machine, its clock or its folders."""
    again = make_wheels(tmp_path)
    assert [it.read_bytes() for it in again.values()] == [it.read_bytes() for it in wheels.values()]


@every_distribution
def test_a_wheel_holds_its_package_and_nothing_else(folder, wheels):
    """A wheel contains its package without tests, other programs and files that only the repository needs."""
    name, package, command, groups = DISTRIBUTIONS[folder]
    source = ROOT / folder / (package if folder == "server" else "")
    about = f"{name.replace('-', '_')}-{VERSION}.dist-info"
    with ZipFile(wheels[folder]) as archive:
        files = set(archive.namelist())
        points = archive.read(f"{about}/entry_points.txt").decode()
        licence = archive.read(f"{about}/licenses/LICENSE")
        fields = archive.read(f"{about}/METADATA").decode().partition("\n\n")[0]
    sources = {
        str(it.relative_to(source)) for it in source.rglob("*") if it.is_file() and it.suffix != ".pyc"
    }
    beside = {"pyproject.toml", "README.md", "LICENSE", "sentryagent-revoke"}

    assert {f"{package}/py.typed", f"{package}/__init__.py"} <= files
    assert {it for it in files if not it.startswith(f"{about}/")} == {
        f"{package}/{it}" for it in sources - beside
    }
    assert set(re.findall(r"^\[(.+)\]$", points, re.MULTILINE)) == groups
    assert re.findall(r"^(\S+) = .*:", points, re.MULTILINE) == [command]
    assert licence == (ROOT / "LICENSE").read_bytes()
    for field in (f"Name: {name}", f"Version: {VERSION}", "License-Expression: Apache-2.0"):
        assert field in fields.splitlines()


@every_distribution
def test_each_works_alone_and_leaves_nothing_behind(folder, wheels, environment):
    """With only its declared requirements, a distribution runs, imports every module and can be uninstalled completely."""
    _, package, command, _ = DISTRIBUTIONS[folder]
    environment.provide(*requires(wheels[folder]))
    before = environment.content()

    environment.install(wheels[folder])

    assert environment.content() - before == {
        package,
        command,
        wheels[folder].name.replace("-py3-none-any.whl", ".dist-info"),
    }
    assert environment.version(folder) == shown(folder)
    assert "sage: " in run(environment.bin / command, "--help")
    code = (
        f"import importlib, pkgutil, {package}\n"
        f"for module in pkgutil.walk_packages({package}.__path__, '{package}.'):\n"
        "    if module.name.rpartition('.')[2] not in {'pytest_plugin', '__main__', 'env'}:\n"
        "        importlib.import_module(module.name)\n"
    )
    run(environment.bin / "python", "-I", "-B", "-c", code)
    environment.pip("uninstall", "-y", DISTRIBUTIONS[folder][0])
    assert environment.content() == before


def test_the_command_of_the_actions_runs_an_action(wheels, environment):
    """The command is the image's entry point, with the same messages outside a workflow and the same exit codes."""
    environment.install(wheels["sentryagent_actions"])
    command = environment.bin / "sentryagent-actions"

    outside = subprocess.run([command, "issue-token"], env={}, capture_output=True, text=True)
    unknown = subprocess.run([command, "deploy"], env={}, capture_output=True, text=True)

    assert (outside.returncode, outside.stdout.count("::error"), outside.stderr) == (1, 1, "")
    assert "mock-idp run" in outside.stdout
    usage = "usage: sentryagent-actions issue-token|register-agent|toolkit|revoke\n"
    assert (unknown.returncode, unknown.stdout) == (2, usage)
    assert run(command, "--help") == usage


USERS_TEST = """
from server.handlers import ANSWER


def test_my_own_server(mock_idp):
    assert (ANSWER, mock_idp.mint(audience="x").count(".")) == (42, 2)
"""


@pytest.mark.parametrize("files", [("handlers.py",), ("__init__.py", "handlers.py")])
def test_a_users_own_server_is_imported(files, users_environment, tmp_path):
    """Our top-level package was once called `server`, and hid or overwrote a user's package of that name."""
    (tmp_path / "app" / "server").mkdir(parents=True)
    for name in files:
        (tmp_path / "app" / "server" / name).write_text("ANSWER = 42\n")
    (tmp_path / "app" / "test_mine.py").write_text(USERS_TEST)

    words = ("-B", "-m", "pytest", "-q", "-p", "no:cacheprovider")
    report = run(users_environment.bin / "python", *words, cwd=tmp_path / "app")

    assert "1 passed" in report


def test_what_is_taken_away_leaves_the_rest_whole(wheels, environment):
    """Uninstalling one distribution breaks neither the others nor a user's own package `server`."""
    own = environment.packages / "server"
    own.mkdir()
    (own / "__init__.py").write_text("ANSWER = 42\n")
    environment.install(*wheels.values())

    left = list(DISTRIBUTIONS)
    while left:
        assert [environment.version(it) for it in left] == [shown(it) for it in left]
        name, package, command, _ = DISTRIBUTIONS[left.pop()]
        environment.pip("uninstall", "-y", name)
        assert not {package, command} & environment.content()
    assert [path.name for path in own.iterdir()] == ["__init__.py"]
    assert (own / "__init__.py").read_text() == "ANSWER = 42\n"
