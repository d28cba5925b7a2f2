import pytest

from mock_idp.runner.masks import SecretMasker
from mock_idp.runner.workflow_commands import Command, CommandProcessor, StepRecord, parse_command


@pytest.fixture
def record():
    return StepRecord()


@pytest.fixture
def masker():
    return SecretMasker()


@pytest.fixture
def processor(record, masker):
    return CommandProcessor(record, masker, "/github/workspace")


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("::notice::text", Command("notice", {}, "text")),
        ("  ::Notice::text", Command("notice", {}, "text")),
        ("::error file=a.py,line=3::text", Command("error", {"file": "a.py", "line": "3"}, "text")),
        ("::error file=,line=3,,title::text", Command("error", {"line": "3"}, "text")),
        ("::error title=a%2Cb%3Ac%25::d%0Ae", Command("error", {"title": "a,b:c%"}, "d\ne")),
        ("::error title=a=b::", Command("error", {"title": "a=b"}, "")),
        # "%25" is decoded last, and "%3A" in data is not an escape.
        ("::debug::%250A %3A", Command("debug", {}, "%0A %3A")),
        ("::debug::a::b", Command("debug", {}, "a::b")),
        # The old form works anywhere in a line: text printed unchecked can contain a command.
        ("text ##[add-mask]secret", Command("add-mask", {}, "secret")),
        ("##[set-output name=a;x=%5D%3B]b", Command("set-output", {"name": "a", "x": "];"}, "b")),
        # An unknown command, or not a command at all.
        ("::unknown::text", None),
        ("text ::notice::text", None),
        ("::notice", None),
        ("##[unknown]text", None),
        ("##[notice", None),
        ("] ##[notice", None),
        ("", None),
    ],
)
def test_commands_are_read_as_the_runner_reads_them(line, command):
    """Each row is a rule of the runner's two command formats."""
    assert parse_command(line) == command


@pytest.mark.parametrize("level", ["error", "warning", "notice"])
def test_an_annotation_is_recorded_and_logged(processor, record, level):
    """The annotation has title, file and line; the message is also logged, and the step does not fail."""
    shown = processor.process(f"::{level} title=T,file=/github/workspace/a.py,line=3::text")

    assert shown == [f"##[{level}]text"]
    assert [note.as_json() for note in record.annotations] == [
        {"level": level, "title": "T", "message": "text", "file": "a.py", "line": 3}
    ]
    assert record.failed is False


def test_an_annotation_without_a_place_has_no_place(processor, record):
    """A line that is not a number is dropped; the title is always present."""
    processor.process("::notice line=x::text")

    assert record.annotations[0].as_json() == {"level": "notice", "title": "", "message": "text"}


def test_ten_annotations_of_a_level_are_kept_and_all_are_logged(processor, record):
    """Ten annotations of a level are kept, as on GitHub, but all are logged."""
    shown = [line for number in range(12) for line in processor.process(f"::warning::{number}")]
    processor.process("::error::other level")

    assert len(shown) == 12
    assert [note.level for note in record.annotations] == ["warning"] * 10 + ["error"]


def test_a_long_message_is_cut(processor, record):
    """A message is cut to 4096 characters."""
    processor.process(f"::notice::{'x' * 5000}")

    assert len(record.annotations[0].message) == 4096


def test_a_mask_hides_what_comes_after_it(processor, record):
    """The command itself is never shown, and everything after it is masked."""
    before = processor.process("secret")
    command = processor.process("::add-mask::secret")
    after = processor.process("a secret b")
    processor.process("::error title=secret::the secret")

    assert (before, command, after) == (["secret"], [], ["a *** b"])
    assert (record.annotations[0].title, record.annotations[0].message) == ("***", "the ***")


def test_a_blank_mask_is_a_warning(processor, record):
    """A blank mask would mask nothing, so it gets a warning."""
    shown = processor.process("::add-mask::  ")

    assert shown == ["##[warning]Can't add secret mask for empty string in ##[add-mask] command."]
    assert processor.process("a  b") == ["a  b"]


def test_a_multi_line_mask_hides_every_line(processor):
    """%0A in a mask is a newline, and each line is masked."""
    processor.process("::add-mask::one%0Atwo")

    assert processor.process("two one") == ["*** ***"]


def test_while_commands_are_stopped_everything_is_text(processor, record):
    """While commands are stopped not even a mask works, until the token is repeated."""
    lines = ["::stop-commands::token123", "::add-mask::secret", "::error::x", "::TOKEN123::", "::error::y"]
    shown = [line for given in lines for line in processor.process(given)]

    assert shown == ["::stop-commands::***", "::add-mask::secret", "::error::x", "::TOKEN123::", "##[error]y"]
    assert [note.message for note in record.annotations] == ["y"]


def test_a_short_stop_token_is_not_a_secret(processor):
    """A stop token of six characters or fewer is not masked, because that would make the log unreadable."""
    processor.process("::stop-commands::short")

    assert processor.process("a short text") == ["a short text"]


@pytest.mark.parametrize("token", ["", "pause-logging", "error", "Add-Mask"])
def test_a_stop_token_that_is_a_command_fails_the_step(processor, record, token):
    """A command's name as stop token is refused: the next such command would resume commands."""
    shown = processor.process(f"::stop-commands::{token}")

    assert shown[0] == f"##[error]Unable to process command '::stop-commands::{token}' successfully."
    assert record.failed is True
    assert processor.process("::notice::x") == ["##[notice]x"]


@pytest.mark.parametrize("name", ["set-env", "add-path", "internal-set-repo-path"])
def test_disabled_commands_fail_the_step(processor, record, name):
    """GitHub disabled these commands because printed text could change the environment."""
    shown = processor.process(f"::{name} name=a::b")

    assert f"The `{name}` command is disabled." in shown[1]
    assert record.failed is True


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("::set-output name=a::1%0A2", ("outputs", {"a": "1\n2"})),
        ("::save-state name=a::1", ("state", {"a": "1"})),
    ],
)
def test_the_deprecated_commands_still_work(processor, record, line, kept):
    """Deprecated commands still set the value, with a warning."""
    shown = processor.process(line)

    assert getattr(record, kept[0]) == kept[1]
    assert "is deprecated" in shown[0]


@pytest.mark.parametrize("name", ["set-output", "save-state"])
def test_a_command_without_its_name_fails_the_step(processor, record, name):
    """The `name` property is required."""
    shown = processor.process(f"::{name}::1")

    assert shown[1] == f"##[error]Required field 'name' is missing in ##[{name}] command."
    assert record.failed is True


def test_outputs_differ_not_by_case_alone(record):
    """Output names have no case: the first spelling is kept, the last value wins."""
    record.set_output("Token", "1")
    record.set_output("TOKEN", "2")

    assert record.outputs == {"Token": "2"}


def test_echo_shows_commands_but_no_secret(processor):
    """With echo on, a command is printed before its effect; a mask is printed masked, and annotations are not echoed."""
    lines = ["::echo::on", "::group::g", "::add-mask::secret", "::notice::n", "::echo::off", "::group::h"]
    shown = [line for given in lines for line in processor.process(given)]

    assert shown == [
        "::echo::on",
        "::group::g",
        "##[group]g",
        "::add-mask::***",
        "##[notice]n",
        "##[group]h",
    ]


def test_a_wrong_echo_value_fails_the_step(processor, record):
    """Echo can only be `on` or `off`."""
    shown = processor.process("::echo::maybe")

    assert "Current value is: 'maybe'." in shown[1]
    assert record.failed is True


@pytest.mark.parametrize(("debug", "shown"), [(False, []), (True, ["##[debug]text"])])
def test_debug_lines_need_step_debug_logging(record, masker, debug, shown):
    """Debug lines are dropped without step debug logging."""
    processor = CommandProcessor(record, masker, "/w", debug=debug)

    assert processor.process("::debug::text") == shown


def test_groups_are_shown_as_in_the_raw_log(processor):
    """The log keeps the marks of a group, which the web page folds."""
    assert processor.process("::group::Title") + processor.process("::endgroup::") == [
        "##[group]Title",
        "##[endgroup]",
    ]


def test_a_message_of_several_lines_is_several_lines_of_log(processor):
    """A multi-line message becomes several lines of the log."""
    assert processor.process("::error::one%0Atwo") == ["##[error]one", "two"]


def test_problem_matchers_are_said_to_be_missing(processor):
    """A problem matcher gives a message that it is not supported."""
    assert "does not support problem matchers" in processor.process("::add-matcher::m.json")[0]


def test_plain_text_passes(processor):
    """Lines that are not commands do not change, nor do empty ones."""
    assert [processor.process(""), processor.process("::x::y")] == [[""], ["::x::y"]]
