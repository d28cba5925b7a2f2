import pytest

from mock_idp.runner.dockerfile import read_dockerfile
from mock_idp.runner.errors import ActionError


@pytest.fixture
def read(tmp_path):
    """Read a Dockerfile from a context with main.py, bin/tool and deep/post.py."""
    for name in ("main.py", "bin/tool", "deep/post.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def read(text):
        (tmp_path / "Dockerfile").write_text(text)
        return read_dockerfile(tmp_path / "Dockerfile")

    return read


def test_the_last_stage_decides(read):
    """Only the last stage counts; continuations, comments and lower case are supported."""
    text = 'FROM a AS build\nENTRYPOINT ["x"]\n# c\nfrom b\nentrypoint ["python", \\\n  # c\n  "-I"]\nCMD ["y"]\n'

    dockerfile = read(text)

    assert (dockerfile.entrypoint, dockerfile.command) == (("python", "-I"), ("y",))


@pytest.mark.parametrize(
    ("lines", "environment"),
    [
        ("ENV GREETING=hello", {"GREETING": "hello"}),
        ("ENV A=1 B='two words' C=x\\ y", {"A": "1", "B": "two words", "C": "x y"}),
        ("ENV OLD the rest of the line", {"OLD": "the rest of the line"}),
        ("ENV A=1\nENV B=${A}/2 C=$A-$GONE", {"A": "1", "B": "1/2", "C": "1-"}),
        ("ENV A=1\nFROM b\nENV B=2", {"B": "2"}),
    ],
)
def test_the_variables_of_the_last_stage_are_read(read, lines, environment):
    """Both forms of ENV are supported, including references to variables of earlier lines."""
    assert read(f"FROM a\n{lines}\n").environment == environment


@pytest.mark.parametrize("line", ["ENTRYPOINT python /main.py", 'CMD {"a": 1}', "ENTRYPOINT [1]"])
def test_the_shell_form_is_refused(read, line):
    """The shell form is refused, because a shell would drop INPUT_API-URL."""
    with pytest.raises(ActionError, match="must have the exec form"):
        read(f"FROM a\n{line}\n")


@pytest.mark.parametrize(
    ("copy", "word", "found"),
    [
        ("COPY main.py /main.py", "/main.py", "main.py"),
        ("COPY main.py /app/", "/app/main.py", "main.py"),
        ("COPY --chown=0:0 bin /usr/local/bin", "/usr/local/bin/tool", "bin/tool"),
        ("COPY bin/ /usr/local/bin/", "tool", "bin/tool"),
        ("COPY deep/post.py /usr/local/bin/after", "after", "deep/post.py"),
        ("COPY deep/post.py /usr/local/bin/after", "/usr/local/bin/after", "deep/post.py"),
        ('COPY ["main.py", "deep/post.py", "/app/"]', "/app/post.py", "deep/post.py"),
        ("COPY . /app", "/app/deep/post.py", "deep/post.py"),
        ("WORKDIR /srv\nCOPY *.py .", "/srv/main.py", "main.py"),
        ("ADD main.py /main.py", "/main.py", "main.py"),
        # From another stage, missing, or not a file.
        ("COPY --from=build /main.py /main.py", "/main.py", None),
        ("COPY main.py /other.py", "/main.py", None),
        ("COPY gone.py /gone.py", "/gone.py", None),
        ("COPY . /app", "deep/post.py", None),
        ("COPY . /app", "/app", None),
    ],
)
def test_files_of_the_image_are_found_in_the_build_context(read, tmp_path, copy, word, found):
    """COPY lines map paths in the image to files of the build context."""
    assert read(f"FROM a\n{copy}\n").find(word) == (tmp_path / found if found else None)
