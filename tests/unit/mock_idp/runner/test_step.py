"""Steps with a fake engine: the environment of a stage, and the effect of its files and output."""

import io
from pathlib import Path

import pytest

from mock_idp.environment import event_payload, job_variables
from mock_idp.job import Job
from mock_idp.runner.action import Action, Input
from mock_idp.runner.engine import Folders
from mock_idp.runner.local_run import expression_contexts, prepare
from mock_idp.runner.masks import SecretMasker
from mock_idp.runner.stage import StepContext, proxy_variables
from mock_idp.runner.step import ActionStep, StepOptions


class _Finished:
    """A process that has ended and whose output is complete."""

    def __init__(self, code, stdout, stderr):
        self.stdout, self.stderr, self._code = io.BytesIO(stdout), io.BytesIO(stderr), code

    def poll(self):
        return self._code

    def wait(self):
        return self._code


class PretendEngine:
    """Runs each stage as a function of the environment that returns exit code, stdout and stderr."""

    def __init__(self, **stages):
        self.stages = stages
        self.started = []
        self.environments = []

    def prepare(self, show, entrypoint):
        show("prepared")

    def seen(self, folders):
        return {folders.workspace: "/github/workspace", folders.temp: "/github/runner_temp"}

    def start(self, entrypoint, args, env, folders):
        self.started.append((entrypoint, args))
        self.environments.append(env)
        behave = self.stages.get(entrypoint or "main", lambda _env, _folders: (0, b"", b""))
        return _Finished(*behave(env, folders))

    def stop(self, process):
        raise AssertionError("nothing is left to stop")


@pytest.fixture
def log():
    return []


@pytest.fixture
def run(tmp_path, log):
    """Run an action with the given stages and return the result."""

    def run(
        engine,
        action_options=None,
        inputs=None,
        step_env=None,
        machine=None,
        debug=False,
        show=log.append,
        options=None,
    ):
        action = Action("Sample", tmp_path, tmp_path / "Dockerfile", **(action_options or {}))
        job = Job()
        context = StepContext(
            job_variables(job, "https://github.com") | {"ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-secret"},
            event_payload(job),
            Folders(tmp_path / "work", tmp_path / "work" / "a" / "a"),
            machine or {},
            SecretMasker(),
            show,
            debug,
        )
        contexts = expression_contexts(context, prepare(context))
        given = StepOptions(inputs or {}, step_env or {})
        return ActionStep(action, engine, context, options or (lambda: given), contexts).run()

    return run


def _write(variable, content, code=0):
    """Make a stage that writes to the file behind a variable."""

    def behave(env, folders):
        path = Path(env[variable].replace("/github/runner_temp", str(folders.temp)))
        path.write_bytes(content)
        return code, b"", b""

    return behave


def test_outputs_of_the_file_are_the_steps_outputs(run):
    """Outputs are not masked: masks concern only logs."""
    result = run(PretendEngine(main=_write("GITHUB_OUTPUT", b"\xef\xbb\xbftoken=a\nb<<E\n1\n2\nE\n")))

    assert (result.outcome, result.record.outputs) == ("success", {"token": "a", "b": "1\n2"})


def test_a_bad_output_file_fails_a_step_that_exits_with_zero(run, log):
    """Pairs before the bad line are kept, and the error is annotated."""
    result = run(PretendEngine(main=_write("GITHUB_OUTPUT", b"a=1\nbad\n")))

    assert (result.outcome, result.record.outputs) == ("failure", {"a": "1"})
    assert log[-2:] == [
        "##[error]Unable to process file command 'output' successfully.",
        "##[error]Invalid format 'bad'",
    ]


def test_the_exit_code_fails_the_step_without_a_word(run, log):
    """Unlike a `run:` step, a container action has no error line for its exit code."""
    result = run(PretendEngine(main=lambda _env, _folders: (7, b"", b"")))

    assert result.outcome == "failure"
    assert not any("##[error]" in line for line in log)


def test_both_streams_carry_commands(run):
    """Commands work on stderr as on stdout, even in an unfinished last line."""
    engine = PretendEngine(main=lambda _env, _folders: (0, b"::notice::out\r\n", b"::notice::err"))

    messages = {note.message for note in run(engine).record.annotations}

    assert messages == {"out", "err"}


def test_state_and_environment_reach_the_post_stage(run):
    """Only the post stage sees STATE_ variables, in their own case."""
    engine = PretendEngine(main=_write("GITHUB_STATE", b"myKey=1\n"))

    run(engine, {"post_entrypoint": "after"})

    assert [entry for entry, _ in engine.started] == ["", "after"]
    main, post = engine.environments
    assert ("STATE_myKey" in main, post["STATE_myKey"]) == (False, "1")


def test_the_post_stage_has_inputs_environment_and_arguments_of_its_own_time(run, log):
    """The runner evaluates inputs, env and arguments again for the post stage; the saved state is kept."""
    engine = PretendEngine(main=_write("GITHUB_STATE", b"kept=1\n"))
    evaluations = iter(["before", "after"])

    def options():
        word = next(evaluations)
        return StepOptions({"where": word}, {"OWN": word})

    action = {
        "post_entrypoint": "post",
        "inputs": (Input("where", "default"),),
        "args": ("${{ inputs.where }}",),
        "env": (("IMAGE", "${{ inputs.where }}"),),
    }
    run(engine, action, options=options)

    main, post = engine.environments
    names = ("INPUT_WHERE", "OWN", "IMAGE")
    assert [main[name] for name in names] == ["before"] * 3
    assert [post[name] for name in names] == ["after"] * 3
    assert engine.started == [("", ["before"]), ("post", ["after"])]
    assert post["STATE_kept"] == "1"
    assert "##[group]Post Sample" in log


def test_every_stage_has_fresh_files(run):
    """Each stage gets new files, so that nothing is read twice."""
    engine = PretendEngine()

    run(engine, {"post_entrypoint": "after"})

    main, post = (env["GITHUB_OUTPUT"] for env in engine.environments)
    assert main != post


@pytest.mark.parametrize(
    ("condition", "code", "stages"),
    [
        ("always()", 1, ["", "after"]),
        ("success()", 1, [""]),
        ("success()", 0, ["", "after"]),
        ("failure()", 0, [""]),
    ],
)
def test_the_post_stage_follows_its_condition(run, condition, code, stages):
    """A post stage follows its condition, and by default also runs after a failure."""
    engine = PretendEngine(main=lambda _env, _folders: (code, b"", b""))

    run(engine, {"post_entrypoint": "after", "post_if": condition})

    assert [entry for entry, _ in engine.started] == stages


def test_a_failing_pre_stage_skips_the_main_stage_but_not_the_post_stage(run):
    """If the pre stage fails, the main stage is skipped and the post stage runs."""
    engine = PretendEngine(before=lambda _env, _folders: (1, b"", b""))

    result = run(engine, {"pre_entrypoint": "before", "post_entrypoint": "after"})

    assert ([entry for entry, _ in engine.started], result.outcome) == (["before", "after"], "failure")


def test_a_failing_post_stage_fails_the_step(run):
    """A failing post stage fails the step, so that a failed revocation is noticed."""
    engine = PretendEngine(after=lambda _env, _folders: (1, b"", b""))

    assert run(engine, {"post_entrypoint": "after"}).outcome == "failure"


def test_the_environment_is_the_runners_alone(run):
    """Only the proxies of the machine's environment are passed on, and there is no GITHUB_TOKEN."""
    engine = PretendEngine()

    run(engine, machine={"SECRET_OF_MINE": "1", "https_proxy": "http://p:1", "GITHUB_TOKEN": "x"})

    env = engine.environments[0]
    assert (env["HTTPS_PROXY"], env["https_proxy"]) == ("http://p:1", "http://p:1")
    assert not {"SECRET_OF_MINE", "GITHUB_TOKEN", "PATH"} & env.keys()


def test_later_sources_of_the_environment_win(run):
    """The action's env only fills gaps, inputs override the step's env, and contexts override both."""
    engine = PretendEngine()
    step_env = {"A": "step", "INPUT_X": "step", "GITHUB_REF": "step", "HOME": "step"}

    run(engine, {"env": (("A", "image"), ("B", "${{ inputs.x }}"))}, {"x": "given"}, step_env)

    env = engine.environments[0]
    assert (env["A"], env["B"], env["INPUT_X"], env["GITHUB_REF"]) == (
        "step",
        "given",
        "given",
        "refs/heads/main",
    )
    assert env["HOME"] == "/github/runner_temp/_github_home"


@pytest.mark.parametrize(("step_env", "seen"), [({}, "true"), ({"CI": "false"}, "false"), ({"CI": ""}, "")])
def test_ci_is_set_only_where_the_workflow_does_not_set_it(run, step_env, seen):
    """`CI: false` in the workflow turns off what some tools do in CI."""
    engine = PretendEngine()

    run(engine, step_env=step_env)

    assert engine.environments[0]["CI"] == seen


def test_ci_of_the_environment_file_reaches_the_next_stage(run):
    """CI can be changed through GITHUB_ENV like any other variable."""
    engine = PretendEngine(main=_write("GITHUB_ENV", b"CI=no\n"))

    run(engine, {"post_entrypoint": "after"})

    assert [env["CI"] for env in engine.environments] == ["true", "no"]


def test_paths_are_translated_where_a_value_starts_with_one(run, tmp_path):
    """A path is mapped into the container if the value begins with it; unmounted paths do not change."""
    engine = PretendEngine()
    workspace = tmp_path / "work" / "a" / "a"

    run(engine, step_env={"IN": f"{workspace}/x", "OUT": f"{workspace}x", "MID": f"x:{workspace}"})

    env = engine.environments[0]
    assert (env["GITHUB_WORKSPACE"], env["IN"]) == ("/github/workspace", "/github/workspace/x")
    assert (env["OUT"], env["MID"]) == (f"{workspace}x", f"x:{workspace}")
    assert env["RUNNER_WORKSPACE"] == str(workspace.parent)
    assert env["RUNNER_TOOL_CACHE"] == str(tmp_path / "work" / "_tool")


def test_the_event_payload_lies_where_the_variable_says(run, tmp_path):
    """GITHUB_EVENT_PATH names the file with the event payload."""
    engine = PretendEngine()

    run(engine)

    assert engine.environments[0]["GITHUB_EVENT_PATH"] == "/github/runner_temp/_github_workflow/event.json"
    assert (tmp_path / "work" / "_temp" / "_github_workflow" / "event.json").read_text().startswith("{")


def test_node_options_cannot_be_set_through_the_file(run):
    """NODE_OPTIONS is refused with an annotation, the other variables are set, and the step does not fail."""
    engine = PretendEngine(main=_write("GITHUB_ENV", b"NODE_OPTIONS=-r x\nGOOD=1\nGITHUB_REF=y\n"))

    result = run(engine, {"post_entrypoint": "after"})

    post = engine.environments[1]
    assert (post["GOOD"], post["GITHUB_REF"], "NODE_OPTIONS" in post) == ("1", "refs/heads/main", False)
    assert result.outcome == "success"
    assert [note.level for note in result.record.annotations] == ["error"]


def test_a_summary_is_masked_line_by_line(run):
    """A secret that is masked in the log is masked in the summary."""

    def behave(env, folders):
        _write("GITHUB_STEP_SUMMARY", b"# T\nsecret\n")(env, folders)
        return 0, b"::add-mask::secret\n", b""

    assert run(PretendEngine(main=behave)).record.summary == "# T\n***\n"


def test_a_summary_over_one_mebibyte_is_dropped_with_an_error(run):
    """A too large summary does not change the step's result."""
    result = run(PretendEngine(main=_write("GITHUB_STEP_SUMMARY", b"x" * (1024 * 1024 + 1))))

    assert (result.outcome, result.record.summary) == ("success", "")
    assert result.record.annotations[0].message == (
        "$GITHUB_STEP_SUMMARY upload aborted, supports content up to a size of 1024k, got 1024k."
    )


def test_a_deleted_file_is_no_error(run):
    """A deleted command file is not an error, as on the runner."""

    def behave(env, folders):
        Path(env["GITHUB_OUTPUT"].replace("/github/runner_temp", str(folders.temp))).unlink()
        return 0, b"", b""

    assert run(PretendEngine(main=behave)).outcome == "success"


def test_the_jobs_credentials_never_show(run, log):
    """The request token, github.token and the proxy's password are masked from the first line on."""
    engine = PretendEngine(
        main=lambda env, _folders: (0, f"{env['INPUT_T']} request-secret pass\n".encode(), b"")
    )

    run(
        engine,
        {"inputs": (Input("t", "${{ github.token }}"),)},
        machine={"HTTPS_PROXY": "http://user:pass@proxy:1"},
    )

    assert "  t: ***" in log
    assert log[-1] == "*** *** ***"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("http://user:pass@proxy:1", "***"),
        ("user:pass@proxy:1", "***"),
        ("http://user:pa#ss/w@rd@proxy:1", "***"),
        ("http://user:pass@[::1", "***"),
        ("http://proxy:1", "pass"),
        ("http://[::1", "pass"),
        ("http://[", "pass"),
        ("", "pass"),
    ],
)
def test_a_proxy_variable_of_any_form_is_no_reason_to_fail(run, log, value, shown):
    """A proxy variable never fails the step, even if it is malformed; its password is masked."""
    password = "pa#ss/w@rd" if "#" in value else "pass"
    machine = {"HTTPS_PROXY": value, "NO_PROXY": "http://[,[::1],fd00::/8"}

    result = run(PretendEngine(main=lambda *_: (0, f"{password}\n".encode(), b"")), machine=machine)

    assert (result.outcome, log[-1]) == ("success", shown)


def test_inputs_and_env_head_the_log(run, log):
    """The log begins with the inputs and env that are not empty, as on the runner; engine lines and warnings follow."""
    run(PretendEngine(), {"inputs": (Input("a"), Input("b", "x"))}, {"typo": "1"}, {"E": "2"})

    assert log == [
        "##[group]Run Sample",
        "with:",
        "  b: x",
        "  typo: 1",
        "env:",
        "  E: 2",
        "##[endgroup]",
        "prepared",
        "##[warning]Unexpected input(s) 'typo', valid inputs are ['entryPoint', 'args', 'a', 'b']",
    ]


def test_debug_logging_reaches_the_step(run, log):
    """With debug logging, RUNNER_DEBUG is 1 and debug lines are shown."""
    engine = PretendEngine(main=lambda _env, _folders: (0, b"::debug::d\n", b""))

    run(engine, debug=True)

    assert engine.environments[0]["RUNNER_DEBUG"] == "1"
    assert log[-1] == "##[debug]d"


def test_a_stage_is_stopped_when_the_run_is_interrupted(run):
    """Nothing keeps running after Ctrl-C or SIGTERM."""
    stopped = []

    class Running(_Finished):
        def poll(self):
            return None

    class Interrupted(PretendEngine):
        def start(self, entrypoint, args, env, folders):
            return Running(0, b"::error::x\n", b"")

        def stop(self, process):
            stopped.append(process)

    def interrupt(line):
        if line.startswith("##[error]"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(), show=interrupt)
    assert len(stopped) == 1


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ({}, {}),
        ({"NO_PROXY": "a"}, {"NO_PROXY": "a", "no_proxy": "a"}),
        ({"http_proxy": "low", "HTTP_PROXY": "UP"}, {"http_proxy": "low", "HTTP_PROXY": "low"}),
        ({"ALL_PROXY": "x", "PATH": "y"}, {}),
    ],
)
def test_proxies_are_copied_in_both_cases(machine, expected):
    """Lower case wins, and only the six proxy variables are copied."""
    assert proxy_variables(machine) == expected


def _cancel(_env, _folders):
    raise SystemExit(143)


def test_a_cancelled_step_is_cleaned_up_after(run, log):
    """After a cancellation the post stage runs, and then the cancellation continues."""
    engine = PretendEngine(main=_cancel)

    with pytest.raises(SystemExit):
        run(engine, {"post_entrypoint": "clean-up"})

    assert [name for name, _ in engine.started] == ["", "clean-up"]
    assert "##[error]The operation was canceled." in log


@pytest.mark.parametrize(
    ("condition", "runs"), [("success()", False), ("failure()", False), ("cancelled()", True)]
)
def test_a_condition_decides_about_a_cancelled_step_too(run, condition, runs):
    """After a cancellation only always() and cancelled() run their stage."""
    engine = PretendEngine(main=_cancel)

    with pytest.raises(SystemExit):
        run(engine, {"post_entrypoint": "clean-up", "post_if": condition})

    assert (("clean-up", None) in engine.started) is runs
