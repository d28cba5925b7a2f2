import pytest
from hypothesis import given
from hypothesis import strategies as st

from mock_idp.runner.file_commands import FileCommandError, parse_pairs


@pytest.mark.parametrize(
    ("content", "pairs"),
    [
        ("", []),
        ("\n\n", []),
        ("a=1", [("a", "1")]),
        ("a=1\nb=\n", [("a", "1"), ("b", "")]),
        (" a = 1 \n", [(" a ", " 1 ")]),
        ("a=b=c", [("a", "b=c")]),
        ("a=x<<EOF", [("a", "x<<EOF")]),
        ("K==<<x", [("K", "=<<x")]),
        ("a<<EOF\nEOF\n", [("a", "")]),
        ("a<<EOF\none\nEOF", [("a", "one")]),
        ("a<<EOF\none\n\ntwo\nEOF\nb=2", [("a", "one\n\ntwo"), ("b", "2")]),
        ("a<<EOF\n EOF\nEOF \nEOF", [("a", " EOF\nEOF ")]),
        # A delimiter may contain characters that would end a name.
        ("K<<=EOF\nv\n=EOF", [("K", "v")]),
        ("K<<<EOF\nv\n<EOF", [("K", "v")]),
        # Only "\n" ends a line, so a carriage return belongs to the value or the delimiter.
        ("a=1\r\n", [("a", "1\r")]),
        ("a<<EOF\r\nx\r\nEOF\r\n", [("a", "x\r")]),
    ],
)
def test_pairs_are_read_as_the_runner_reads_them(content, pairs):
    """Each row is a rule of the runner's grammar on Linux."""
    assert list(parse_pairs(content)) == pairs


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text", "Invalid format 'text'"),
        ("<<EOF\nx\nEOF", "Invalid format '<<EOF'. Name must not be empty and delimiter must not be empty"),
        ("a<<\nx", "Invalid format 'a<<'. Name must not be empty and delimiter must not be empty"),
        ("=1", "Invalid format '=1'. Name must not be empty"),
        ("a<<EOF\nx\n", "Invalid value. Matching delimiter not found 'EOF'"),
        ("a<<EOF\n", "Invalid value. Matching delimiter not found 'EOF'"),
        ("a<<EOF\nx", "Invalid value. EOF marker missing new line."),
        ("a<<EOF\r\nx\nEOF\n", "Invalid value. Matching delimiter not found 'EOF\r'"),
    ],
)
def test_a_bad_line_has_the_runners_error(content, message):
    """Errors have the runner's text, because users search for it."""
    with pytest.raises(FileCommandError) as caught:
        list(parse_pairs(content))

    assert str(caught.value) == message


def test_pairs_before_a_bad_line_count():
    """Pairs before the bad line are kept, as by the runner."""
    pairs = parse_pairs("a=1\nbad\nb=2")

    assert next(pairs) == ("a", "1")
    with pytest.raises(FileCommandError):
        next(pairs)


@given(st.text().filter(lambda value: "ghadelimiter" not in value))
def test_what_the_toolkit_writes_comes_back(value):
    """A heredoc with a random delimiter can hold any text."""
    content = f"name<<ghadelimiter_1\n{value}\nghadelimiter_1\n"

    assert list(parse_pairs(content)) == [("name", value)]
