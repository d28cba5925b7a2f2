"""`mock-idp run FILE.yml`: the steps of one job in a row."""

import json
import os
import signal
import subprocess
import sys

import pytest

MOCK_IDP = [sys.executable, "-c", "from mock_idp.cli.main import main; main()"]
HEAD = "name: Try\non: push\njobs:\n  job:\n    runs-on: ubuntu-latest\n    permissions: {id-token: write}\n    steps:\n"


@pytest.fixture
def run_file(command, idp, tmp_path):
    """Run steps as a workflow file; exit code, log, stderr and report."""

    def run_file(steps, *words, head=HEAD, **environment):
        file, report = tmp_path / "try.yml", tmp_path / "report.json"
        file.write_text(head + steps)
        code, out, err = command("run", file, "--url", idp.url, "--json", report, *words, **environment)
        text = report.read_text() if report.exists() else ""
        return code, out, err, json.loads(text) if text else None

    return run_file


@pytest.fixture
def sample(sample_action):
    """The words that let a workflow use the sample action."""
    return "--action", f"octo-org/sample@v1={sample_action}"


def test_steps_hand_on_outputs_environment_and_path(run_file, sample):
    """What one step writes, the next ones have; a masked value stays masked in all of them."""
    code, log, _, report = run_file(
        """
      - uses: octo-org/sample@v1
        id: sample
        with: {api-url: "https://a", audience: "${{ inputs.aud }}"}
      - name: Use ${{ vars.WHAT }}
        id: use
        env: {TOKEN: "${{ steps.sample.outputs.token }}"}
        run: |
          test -n "$TOKEN"
          echo "token: $TOKEN"
          echo "LATER=by ${{ github.actor }}" >> "$GITHUB_ENV"
          mkdir -p "$RUNNER_TEMP/bin"
          printf '#!/bin/sh\\necho from-path' > "$RUNNER_TEMP/bin/mine"
          chmod +x "$RUNNER_TEMP/bin/mine"
          echo "$RUNNER_TEMP/bin" >> "$GITHUB_PATH"
      - id: last
        run: |
          echo "later=$LATER ${{ env.LATER }}" >> "$GITHUB_OUTPUT"
          echo "mine=$(mine)" >> "$GITHUB_OUTPUT"
""",
        *sample, "--input", "aud=https://id.example.com", "--var", "WHAT=it",
    )  # fmt: skip

    assert (code, report["outcome"]) == (0, "success")
    assert [step["outcome"] for step in report["steps"]] == ["success"] * 3
    assert report["steps"][2]["outputs"] == {"later": "by octocat by octocat", "mine": "from-path"}
    assert "##[group]Run Use it" in log
    assert "token: ***" in log
    assert report["steps"][0]["outputs"]["token"] not in log


def test_a_post_stage_has_its_inputs_evaluated_again(run_file, sample):
    """As on GitHub: by then later steps have set outputs and changed the environment. State and name stay."""
    head = HEAD.replace("jobs:", "env: {URL: https://before}\njobs:")

    code, log, _, _ = run_file(
        """
      - uses: octo-org/sample@v1
        name: For ${{ env.URL }}
        env: {OF_STEP: "${{ steps.later.outputs.url }}"}
        with: {api-url: "${{ env.URL }} ${{ env.OF_STEP }}", mode: "${{ env.MODE }}"}
      - id: later
        run: |
          echo "URL=https://after" >> "$GITHUB_ENV"
          echo "MODE=other" >> "$GITHUB_ENV"
          echo "url=https://output" >> "$GITHUB_OUTPUT"
""",
        *sample, "--env", "MODE=environment", head=head,
    )  # fmt: skip

    assert code == 0, log
    assert "  api-url: https://before \n" in log
    assert "##[group]Post For https://before\n" in log
    assert "state is environment" in log
    assert "post with 'https://after https://output' and 'https://after https://output'" in log


def test_a_failed_step_skips_the_rest_and_post_stages_still_run(run_file, sample):
    """Exit 1; a script says its exit code."""
    code, log, _, report = run_file(
        """
      - uses: octo-org/sample@v1
        with: {api-url: "https://a"}
      - run: "false | true"
      - run: "false | true"
        shell: bash
      - run: echo never
""",
        *sample,
    )

    assert code == 1
    assert [step["outcome"] for step in report["steps"]] == ["success", "success", "failure", "skipped"]
    assert log.index("##[error]Process completed with exit code 1.") < log.index("##[group]Post Sample")
    assert "never" not in log.replace("Run echo never", "")


def test_what_the_file_says_about_the_job_is_in_the_token(run_file, idp, sample):
    """File name, workflow name, environment; an option wins over the file."""
    head = HEAD.replace("    permissions:", "    environment: staging\n    permissions:")
    steps = '      - uses: octo-org/sample@v1\n        with: {api-url: "https://a"}\n      - run: echo "$GITHUB_WORKFLOW $GITHUB_WORKFLOW_REF"\n'

    code, log, _, _ = run_file(steps, *sample, "--workflow", "deploy.yml", head=head)

    assert code == 0
    assert "Try octo-org/hello-agent/.github/workflows/deploy.yml@refs/heads/main" in log


@pytest.mark.parametrize(
    ("words", "seen"),
    [
        (["--event", "workflow_dispatch"], "high"),
        (["--event", "workflow_dispatch", "--input", "level=low"], "low"),
        ([], ""),
    ],
)
def test_a_dispatched_workflow_has_the_defaults_of_its_inputs(run_file, words, seen):
    """Another event has none."""
    head = HEAD.replace("on: push", "on: {push: {}, workflow_dispatch: {inputs: {level: {default: high}}}}")

    _, _, _, report = run_file(
        '      - id: l\n        run: echo "level=${{ inputs.level }}" >> "$GITHUB_OUTPUT"\n',
        *words,
        head=head,
    )

    assert report["steps"][0]["outputs"]["level"] == seen


def test_without_the_permission_there_are_no_variables(run_file):
    """As on GitHub: it is never implicit."""
    head = HEAD.replace("    permissions: {id-token: write}\n", "")
    steps = '      - run: test -z "$ACTIONS_ID_TOKEN_REQUEST_URL"\n'

    assert run_file(steps, head=head)[0] == 0
    assert run_file(steps, head=head.replace("on: push", "on: push\npermissions: write-all"))[0] == 1
    assert run_file(steps, "--id-token", "write", head=head)[0] == 1


def test_a_local_action_lies_in_the_workspace(run_file, sample_action):
    """`uses: ./x` and a checkout, for which the given workspace stands."""
    steps = '      - uses: actions/checkout@v5\n        with: {persist-credentials: false}\n      - uses: ./sample_action\n        with: {api-url: "https://a"}\n'

    code, log, _, _ = run_file(steps, "--workspace", sample_action.parent)

    assert code == 0
    assert f"the workspace is {sample_action.parent}" in log


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN], ids=["usual", "ignored"])
def test_a_job_that_takes_too_long_is_cancelled(run_file, sample, handler):
    """Its clean-up still runs; the exit code is that of a cancellation. A shell's background jobs ignore SIGINT."""
    signal.signal(signal.SIGINT, handler)
    head = HEAD.replace("    permissions:", "    timeout-minutes: 0.02\n    permissions:")
    steps = '      - uses: octo-org/sample@v1\n        with: {api-url: "https://a"}\n      - run: sleep 60\n      - run: echo never\n'

    code, log, _, _ = run_file(steps, *sample, head=head)

    assert code == 130, log
    assert "##[error]The job has exceeded the maximum execution time of 0.02 minutes." in log
    assert log.index("##[error]The operation was canceled.") < log.index("##[group]Post Sample")
    assert "Run echo never" not in log
    assert signal.getsignal(signal.SIGINT) is handler


def test_an_action_learns_where_it_comes_from(run_file, sample):
    """Its repository and ref, as far as `uses` says so, and its id."""
    steps = '      - uses: octo-org/sample@v1\n        id: it\n        with: {api-url: "https://a", mode: environment}\n'

    _, _, _, report = run_file(steps, *sample)

    seen = json.loads(report["steps"][0]["outputs"]["environment"])
    names = ("GITHUB_ACTION", "GITHUB_ACTION_REPOSITORY", "GITHUB_ACTION_REF")
    assert [seen[name] for name in names] == ["it", "octo-org/sample", "v1"]


def test_a_step_has_a_clean_environment(run_file):
    """Nothing of this machine leaks into a script but the search path."""
    code, _, _, report = run_file(
        '      - id: e\n        run: echo "seen=${SECRET_OF_MINE-no} ${MOCK_IDP_URL-no} $CI" >> "$GITHUB_OUTPUT"\n',
        SECRET_OF_MINE="1",
    )

    assert (code, report["steps"][0]["outputs"]["seen"]) == (0, "no no true")


@pytest.mark.parametrize(
    ("steps", "words", "message"),
    [
        ("      - uses: octo-org/other@v1\n", (), "name its folder with --action octo-org/other@v1=FOLDER"),
        ("      - uses: actions/checkout@v5\n", (), "give the checked-out folder with --workspace"),
        ("      - uses: actions/checkout@v5\n        with: {ref: x}\n", ("--workspace", "/tmp"), "does not do `with.ref` of a checkout"),
        ("      - uses: ./gone\n", (), "Did you forget to run actions/checkout"),
        ("      - run: echo ${{ contains('a', 'b') }}\n", (), "for functions and operators run the workflow with act"),
        ("      - run: echo\n        if: always()\n", (), "does not know `if`"),
        ("      - run: echo\n", ("--job", "other"), "choose a job with --job; the file has job"),
        ("      - run: echo\n", ("--action", "x=/tmp"), "must be NAME@REF=FOLDER"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_here_is_one_line(run_file, steps, words, message):
    """Exit 2 and what to do."""
    code, _, err, _ = run_file(steps, *words)

    assert (code, err.count("\n")) == (2, 1)
    assert message in err


def test_a_step_that_cannot_be_run_lets_those_before_it_clean_up(run_file, sample):
    """Their post stages run although the job ends with wrong usage."""
    steps = '      - uses: octo-org/sample@v1\n        with: {api-url: "https://a"}\n      - uses: ./gone\n'

    code, log, err, _ = run_file(steps, *sample)

    assert (code, "##[group]Post Sample" in log, "Did you forget" in err) == (2, True, True)


def test_options_of_a_file_are_refused_for_a_folder(command, idp, sample_action):
    """No option is accepted and then ignored."""
    code, _, err = command("run", sample_action, "--url", idp.url, "--var", "A=b")

    assert code == 2
    assert "--job, --var and --action are for workflow files" in err


def test_a_cancelled_job_cleans_up(idp, sample_action, tmp_path):
    """SIGTERM ends the script; the post stage of the step before it still runs, with its token good."""
    file = tmp_path / "wait.yml"
    file.write_text(
        HEAD
        + '      - uses: o/sample@v1\n        with: {api-url: "https://a"}\n      - run: echo waiting; sleep 60\n      - run: echo never\n'
    )
    words = ["run", file, "--url", idp.url, "--action", f"o/sample@v1={sample_action}"]
    environ = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*MOCK_IDP, *map(str, words)], env=environ, stdout=subprocess.PIPE, text=True
    ) as process:
        before = []
        for line in process.stdout:
            before.append(line)
            if line == "waiting\n":
                break
        process.send_signal(signal.SIGTERM)
        after, _ = process.communicate(timeout=20)

    assert process.returncode == 143
    assert "##[error]The operation was canceled.\n##[group]Post Sample\n" in after
    assert "##[notice]state is token" in after
    assert "never" not in after
    assert idp.state.jobs() == []
