import pytest

from mock_idp.runner.errors import ActionError
from mock_idp.runner.workflow_file import read_job_source

STEPS = "    steps:\n      - run: echo\n"


@pytest.fixture
def read(tmp_path):
    """Read a workflow's text."""

    def read(text, job=""):
        file = tmp_path / "ci.yml"
        file.write_text(text)
        return read_job_source(file, job)

    return read


def test_a_job_is_read_with_all_that_it_says(read):
    """Names, environment, permission and each step's parts; what has no effect on one job here may stand."""
    job = read(
        """
name: Deploy
on: {push: {branches: [main]}}
env: {A: 1, B: file}
jobs:
  deploy:
    runs-on: ubuntu-latest
    environment: {name: production, url: "https://x"}
    permissions: {id-token: write, contents: read}
    env: {B: job}
    steps:
      - uses: ./act
        id: it
        with: {flag: true, n: 1}
      - name: Show
        run: |
          echo ${{ steps.it.outputs.x }}
        shell: bash
        env: {C: "2"}
"""
    )

    assert (job.workflow_name, job.environment, job.may_request_id_token) == ("Deploy", "production", True)
    assert job.env == {"A": "1", "B": "job"}
    first, second = job.steps
    assert (first.uses, first.id, first.inputs) == ("./act", "it", {"flag": "true", "n": "1"})
    assert (second.name, second.run, second.shell, second.env) == (
        "Show",
        "echo ${{ steps.it.outputs.x }}\n",
        "bash",
        {"C": "2"},
    )


@pytest.mark.parametrize(
    ("of_file", "of_job", "granted"),
    [
        ("", "", False),
        ("permissions: {id-token: write}\n", "", True),
        ("permissions: {id-token: write}\n", "    permissions: {contents: read}\n", False),
        ("permissions: read-all\n", "", False),
        ("permissions: write-all\n", "", True),
        ("permissions: {}\n", "    permissions: {id-token: write}\n", True),
        ("", "    permissions: {id-token: none}\n", False),
    ],
)
def test_the_permission_is_never_implicit(read, of_file, of_job, granted):
    """A map of the job replaces the file's, and what it does not list is none."""
    assert read(f"{of_file}jobs:\n  a:\n{of_job}{STEPS}").may_request_id_token is granted


def test_a_job_is_chosen_by_name(read):
    """Only where there are several must it be named."""
    text = f"jobs:\n  a:\n{STEPS}  b:\n    env: {{X: b}}\n{STEPS}"

    assert read(text, "b").env == {"X": "b"}
    for name in ("", "c"):
        with pytest.raises(ActionError, match="choose a job with --job; the file has a, b"):
            read(text, name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "choose a job with --job; the file has none"),
        ("jobs: [a]", "`jobs` must be a mapping"),
        ("jobs: {a: {steps: []}}", "at least one step"),
        ("jobs: {a: {steps: [x]}}", "step 1 must be a mapping"),
        ("jobs: {a: {steps: [{name: x}]}}", "must have either `uses` or `run`"),
        ("jobs: {a: {steps: [{run: x, uses: y}]}}", "must have either `uses` or `run`"),
        ("jobs: {a: {steps: [{run: x, with: {a: b}}]}}", "`with` belongs to `uses`"),
        ("jobs: {a: {steps: [{uses: ./x, shell: bash}]}}", "`shell` belongs to `run`"),
        ("jobs: {a: {steps: [{run: x, shell: pwsh}]}}", "run the workflow with act for 'pwsh'"),
        (
            "jobs: {a: {steps: [{run: x, if: always()}]}}",
            "mock-idp does not know `if`; take it out, or run the workflow with act",
        ),
        ("jobs: {a: {strategy: {matrix: {}}, steps: [{run: x}]}}", "does not know `strategy`"),
        ("jobs: {a: {outputs: {}, steps: [{run: x}]}}", "does not know `outputs`"),
        ("defaults: {}\njobs: {a: {steps: [{run: x}]}}", "does not know `defaults`"),
        (
            "jobs: {a: {steps: [{run: x, id: i}, {run: x, id: I}]}}",
            "the id 'i' is used by more than one step",
        ),
        ("jobs: {a: {steps: [{run: x, env: {a: [1]}}]}}", "`env.a` must be a text"),
        ("jobs: {a: {permissions: {id-token: read}, steps: [{run: x}]}}", "must be write or none"),
        (
            "jobs: {a: {timeout-minutes: soon, steps: [{run: x}]}}",
            "`timeout-minutes` must be a number of minutes",
        ),
        (
            "jobs: {a: {timeout-minutes: 0, steps: [{run: x}]}}",
            "`timeout-minutes` must be a number of minutes",
        ),
        ("jobs: {a: {permissions: most, steps: [{run: x}]}}", "read-all, write-all or a mapping"),
        ("jobs: {a: {environment: '${{ vars.E }}', steps: [{run: x}]}}", "use --environment"),
        ("jobs: {", "is not readable as YAML"),
    ],
)
def test_what_is_not_known_is_refused_and_never_passed_over(read, text, message):
    """One sentence that names the place and what to do."""
    with pytest.raises(ActionError) as caught:
        read(text)
    assert message in str(caught.value)
