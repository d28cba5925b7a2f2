import signal
import sys

import pytest

from mock_idp.runner import process_engine
from mock_idp.runner.action import Action
from mock_idp.runner.engine import Folders
from mock_idp.runner.errors import ActionError
from mock_idp.runner.process_engine import ProcessEngine


@pytest.fixture
def make(tmp_path):
    """Make an engine for a Dockerfile whose context has main.py and a script with the given text."""

    def make(dockerfile, script="#!/usr/local/bin/python -I\n", machine=None):
        (tmp_path / "Dockerfile").write_text(f"FROM a\n{dockerfile}\n")
        (tmp_path / "main.py").write_text("print('main')\n")
        (tmp_path / "script").write_text(script)
        action = Action("Sample", tmp_path, tmp_path / "Dockerfile")
        return ProcessEngine(action, machine or {})

    return make


@pytest.mark.parametrize("python", ["python", "/usr/local/bin/python3", "/opt/venv/bin/python3.13"])
def test_the_images_python_becomes_this_one_and_leaves_no_bytecode(make, tmp_path, python):
    """The image's Python is replaced, the flags are kept, and the script's path is mapped to the build context."""
    engine = make(f'COPY main.py /app/main.py\nENTRYPOINT ["{python}", "-I", "/app/main.py"]')

    assert engine._image_entry() == [sys.executable, "-B", "-I", str(tmp_path / "main.py")]


@pytest.mark.parametrize(
    ("shebang", "interpreter"),
    [
        ("#!/usr/local/bin/python -I", [sys.executable, "-B", "-I"]),
        ("#!/usr/bin/env python3", [sys.executable, "-B"]),
        ("#!/usr/bin/env -S python3 -I -u", [sys.executable, "-B", "-I", "-u"]),
        ("#!/no/such/place/interpreter -x", ["/no/such/place/interpreter", "-x"]),
        ("MZ", []),
    ],
)
def test_the_shebang_of_a_copied_script_is_honoured(make, tmp_path, shebang, interpreter):
    """Python in a shebang is replaced by the current one, with its flags kept."""
    engine = make("COPY script /usr/local/bin/after", f"{shebang}\n")

    assert engine._entry("after") == [*interpreter, str(tmp_path / "script")]


def test_a_console_script_lies_beside_this_python(make, tmp_path, monkeypatch):
    """A console script of the image is taken from the current Python environment."""
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "agent-revoke"
    script.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))

    assert make("")._entry("/usr/local/bin/agent-revoke") == [str(script)]


def test_an_entry_point_that_is_nowhere_is_explained(make):
    """The error says where the entry point was searched, and what to do."""
    with pytest.raises(
        ActionError, match=r"cannot find the entry point 'gone': no COPY line .* Use --engine docker"
    ):
        make("")._entry("gone")


def test_an_image_without_entry_point_is_explained(make):
    """An entry point that only the base image has is unknown, and the error says so."""
    with pytest.raises(ActionError, match="has no ENTRYPOINT in its last stage"):
        make("")._image_entry()


@pytest.mark.parametrize(
    ("entrypoint", "args", "words"),
    [
        ("", None, ["from-cmd"]),
        ("", [], []),
        ("", ["a", ""], ["a", ""]),
        ("after", None, []),
        ("after", ["a"], ["a"]),
    ],
)
def test_arguments_follow_dockers_rules(make, tmp_path, entrypoint, args, words):
    """CMD is used only if neither arguments nor an entry point are given."""
    program = "import sys\nprint(sys.argv[1:])\n"
    engine = make(
        'COPY script /after\nCOPY script /script\nENTRYPOINT ["python", "/script"]\nCMD ["from-cmd"]',
        f"#!/usr/bin/python\n{program}",
    )
    folders = Folders(tmp_path, tmp_path)

    with engine.start(entrypoint, args, {}, folders) as process:
        out, _ = process.communicate()

    assert out.decode().strip() == str(words)


def test_a_stage_runs_in_the_workspace_with_nothing_of_this_machine_but_what_it_needs(make, tmp_path):
    """PATH and the CA bundle are passed on, other variables are not; the step's own values win."""
    program = "import os\nprint(os.getcwd(), os.environ['PATH'], os.environ['SSL_CERT_FILE'], 'MINE' in os.environ)\n"
    machine = {"PATH": "/p", "SSL_CERT_FILE": "/ca", "MINE": "1"}
    engine = make('COPY script /s\nENTRYPOINT ["python", "/s"]', program, machine)
    workspace = tmp_path / "w"
    workspace.mkdir()

    with engine.start("", None, {"SSL_CERT_FILE": "/mine"}, Folders(tmp_path, workspace)) as process:
        out, _ = process.communicate()

    assert out.decode().split() == [str(workspace), "/p", "/mine", "False"]


def test_the_images_variables_reach_a_stage_but_for_its_path(make, tmp_path):
    """The image's ENV variables are set except PATH, whose folders exist only in the image; the step's values win."""
    program = "import os\nprint(os.environ['PATH'], os.environ['GREETING'], os.environ['MINE'])\n"
    lines = 'COPY script /s\nENV GREETING=hello MINE=image PATH=/opt/bin:$PATH\nENTRYPOINT ["python", "/s"]'
    engine = make(lines, program, {"PATH": "/p"})

    with engine.start("", None, {"MINE": "step"}, Folders(tmp_path, tmp_path)) as process:
        out, _ = process.communicate()

    assert out.decode().split() == ["/p", "hello", "step"]


@pytest.mark.parametrize(
    ("lines", "script", "entrypoint", "message"),
    [
        ("COPY script /s", "", "", "has no ENTRYPOINT"),
        ('COPY script /s\nENTRYPOINT ["python", "/s"]', "", "gone", "cannot find the entry point 'gone'"),
        ("COPY script /s", "#!/no/such/interpreter\n", "/s", "cannot start /no/such/interpreter"),
    ],
)
def test_a_main_stage_that_cannot_start_is_refused_before_any_stage(make, lines, script, entrypoint, message):
    """A main stage that cannot start is refused before the pre stage runs: half a release would be worse."""
    log = []

    with pytest.raises(ActionError, match=message):
        make(lines, script).prepare(log.append, entrypoint)
    assert log == []


def test_a_stage_that_cannot_start_is_explained(make, tmp_path):
    """If the interpreter of a shebang is missing, the error names it."""
    engine = make("COPY script /s", "#!/no/such/interpreter\n")

    with pytest.raises(ActionError, match="cannot start /no/such/interpreter: No such file"):
        engine.start("/s", None, {}, Folders(tmp_path, tmp_path))


def test_a_stage_is_stopped(make, tmp_path):
    """Stopping ends a process that waits forever."""
    engine = make('COPY script /s\nENTRYPOINT ["python", "/s"]', "import signal\nsignal.pause()\n")

    with engine.start("", None, {}, Folders(tmp_path, tmp_path)) as process:
        engine.stop(process)

    assert process.returncode != 0


def test_a_stage_that_ignores_the_request_is_killed(make, tmp_path, monkeypatch):
    """A process that ignores SIGTERM is killed."""
    monkeypatch.setattr(process_engine, "_TERMINATION_SECONDS", 0.05)
    program = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint(1, flush=True)\nwhile True: signal.pause()\n"
    engine = make('COPY script /s\nENTRYPOINT ["python", "/s"]', program)

    with engine.start("", None, {}, Folders(tmp_path, tmp_path)) as process:
        process.stdout.readline()
        engine.stop(process)

    assert process.returncode == -signal.SIGKILL
