import json
import shlex

import pytest

from mock_idp.environment import ACT_TAKES, FORMATS, event_payload, job_variables
from mock_idp.job import Job

VARIABLES = {
    "GITHUB_WORKFLOW": "it's nightly",
    "ACTIONS_ID_TOKEN_REQUEST_URL": "http://127.0.0.1:1/232//idtoken/p/j?api-version=2.0",
    "GITHUB_ACTOR_ID": "1",
}


def test_a_shell_reads_back_what_was_printed():
    """Quotes and spaces survive `eval`."""
    lines = [shlex.split(line) for line in FORMATS["sh"](VARIABLES).splitlines()]

    assert dict(words[1].split("=", 1) for words in lines) == VARIABLES
    assert {words[0] for words in lines} == {"export"}


def test_dotenv_has_no_quotes():
    """Dotenv values are not quoted, because `docker run --env-file` takes quotes literally."""
    assert FORMATS["dotenv"](VARIABLES).splitlines()[0] == "GITHUB_WORKFLOW=it's nightly"


def test_json_is_an_object():
    """The JSON format is one object."""
    assert json.loads(FORMATS["json"](VARIABLES)) == VARIABLES


def test_act_gets_what_it_takes_as_words_of_one_line():
    """Plain word splitting gives act its arguments; variables that act sets itself are omitted."""
    line = FORMATS["act"](VARIABLES)

    assert line.split(" ") == [
        "--env",
        f"ACTIONS_ID_TOKEN_REQUEST_URL={VARIABLES['ACTIONS_ID_TOKEN_REQUEST_URL']}",
        "--env",
        "GITHUB_ACTOR_ID=1",
    ]


@pytest.mark.parametrize("options", [{}, {"event": "pull_request"}, {"actor": "dependabot[bot]"}])
def test_no_value_for_act_holds_a_blank(options):
    """A space would split a value into two arguments."""
    variables = job_variables(Job(**options), "https://github.com")

    values = [variables[name] for name in ACT_TAKES if name in variables]
    assert len(values) == len(ACT_TAKES) - 2
    assert not any(character.isspace() for value in values for character in value)


def test_the_job_has_the_key_that_its_workflow_gives_it():
    """GITHUB_JOB is the job's key under `jobs:`."""
    assert job_variables(Job(), "https://github.com")["GITHUB_JOB"] == "job"
    assert job_variables(Job(job_id="deploy-prod"), "https://github.com")["GITHUB_JOB"] == "deploy-prod"


def test_the_variables_that_well_known_actions_demand_are_there():
    """aws-actions/configure-aws-credentials waits 90 s and fails if one of its variables is missing."""
    variables = job_variables(Job(), "https://github.com")

    names = {"GITHUB_REPOSITORY", "GITHUB_WORKFLOW", "GITHUB_ACTION", "GITHUB_ACTOR", "GITHUB_SHA"}
    assert not [name for name in names if not variables.get(name)]


def test_no_github_token_is_among_the_variables():
    """The runner does not set GITHUB_TOKEN for an action that does not ask for it."""
    assert "GITHUB_TOKEN" not in job_variables(Job(), "https://github.com")


@pytest.mark.parametrize(
    ("server", "api", "graphql"),
    [
        ("https://github.com", "https://api.github.com", "https://api.github.com/graphql"),
        (
            "https://ghes.example.com",
            "https://ghes.example.com/api/v3",
            "https://ghes.example.com/api/graphql",
        ),
        (
            "https://octocorp.ghe.com",
            "https://api.octocorp.ghe.com",
            "https://api.octocorp.ghe.com/graphql",
        ),
    ],
)
def test_urls_follow_the_server(server, api, graphql):
    """On GHES the API is a path on the same host, on GHE.com it has its own host."""
    variables = job_variables(Job(), server)

    assert (variables["GITHUB_SERVER_URL"], variables["GITHUB_API_URL"], variables["GITHUB_GRAPHQL_URL"]) == (
        server,
        api,
        graphql,
    )


@pytest.mark.parametrize(
    ("mode", "head", "fork"),
    [("write", "octo-org/hello-agent", False), ("fork", "octocat/hello-agent", True)],
)
def test_the_payload_of_a_pull_request_tells_a_fork(mode, head, fork):
    """A pull request from a fork has the author's repository as head, marked as a fork."""
    payload = event_payload(Job(event="pull_request", id_token=mode))

    repository = payload["pull_request"]["head"]["repo"]
    assert (repository["full_name"], repository["fork"]) == (head, fork)
    assert payload["pull_request"]["base"]["repo"]["full_name"] == "octo-org/hello-agent"


def test_the_payload_of_a_push_has_ref_and_commit():
    """`after` is the pushed commit, and only a push has it."""
    payload = event_payload(Job())

    assert (payload["ref"], payload["after"]) == ("refs/heads/main", Job().sha)
    assert "after" not in event_payload(Job(event="schedule"))
