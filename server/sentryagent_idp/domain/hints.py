"""The advice beside a failed condition: why the run and the policy differ, and which of the two to change."""

from uuid import UUID

from sentryagent_idp.domain import patterns
from sentryagent_idp.domain.identity import WorkflowIdentity

ACTOR = "The policy lists who may start the run, by numeric id (claim `actor_id`), not by login; add the id if it may."
DISABLED = "The policy is switched off; set `enabled` to true to let it count."
EXPIRED = "The policy's `expiresAt` is past; set a later one, or remove it."

_PULL_REQUEST = (
    "The run is of a pull request (refs/pull/…), which `branch` and `tag` never cover; where pull requests shall be "
    "let in, add a policy without both and list pull_request in `events`."
)
_NO_REF = "The run has no ref, as a deployment of a commit has none; start it from a branch or a tag."


def branch(wanted: str, run: WorkflowIdentity) -> str:
    """Why `branch` does not cover the run."""
    if run.branch is not None:
        return _other_name("branch", wanted, run.branch)
    if run.tag is not None and patterns.matches(wanted, run.tag):
        return f"The run is of the tag {run.tag}, not of the branch of that name; a tag is covered by `tag`."
    if run.tag is not None:
        return "The run is of a tag, which `branch` never covers; add a policy with `tag` (a pattern such as v* covers later ones)."
    return ref(run)


def tag(wanted: str, run: WorkflowIdentity) -> str:
    """Why `tag` does not cover the run."""
    if run.tag is not None:
        return _other_name("tag", wanted, run.tag)
    if run.branch is not None and patterns.matches(wanted, run.branch):
        return f"The run is of the branch {run.branch}, not of the tag of that name; a branch is covered by `branch`."
    if run.branch is not None:
        return "The run is of a branch, which `tag` never covers; add a policy with `branch`."
    return ref(run)


def _other_name(kind: str, wanted: str, actual: str) -> str:
    if wanted.casefold() == actual.casefold():
        return f"The two differ in the case of their letters only, by which git tells a {kind} from another; correct the policy."
    if patterns.matches(wanted.replace("*", "**"), actual):
        return "A single `*` does not reach across `/`; write `**` where it shall."
    return f"Run from a {kind} that the policy covers, add a policy for {actual}, or widen this one."


def ref(run: WorkflowIdentity) -> str:
    """Why a ref that is no branch and no tag is not covered."""
    if run.ref.startswith("refs/pull/"):
        return _PULL_REQUEST
    if run.ref_type is None:
        return "The token has no claim `ref_type`, without which branch and tag cannot be told apart."
    return (
        _NO_REF if not run.ref else "The run's ref is neither a branch nor a tag; start it from one of these."
    )


def environment(wanted: str, run: WorkflowIdentity) -> str:
    """Why the environment is another; also what people see in `sub`, and take for the cause."""
    if run.environment is None:
        return (
            f"The job names no environment; add `environment: {wanted}` to it. "
            "(It replaces the ref in `sub`, but the policy compares claims, not `sub`, so `branch` still holds.)"
        )
    if wanted.casefold() == run.environment.casefold():
        return (
            "The names differ in the case of letters outside ASCII, and only ASCII is compared without case."
        )
    return f"Run the job in the environment {wanted}, or add a policy for this one."


def workflow(wanted: str, run: WorkflowIdentity) -> str:
    """Why the workflow is another: most often the called one was meant."""
    if f"/.github/workflows/{wanted}@" in (run.job_workflow_ref or ""):
        return (
            f"`workflow` is the file that was started; {wanted} is the reusable workflow that it calls, "
            f"which `calledWorkflow` covers, written as {run.job_workflow_ref}."
        )
    if wanted.casefold() == (run.workflow_file or "").casefold():
        return "The two differ in the case of their letters only, which file names have; correct the policy."
    return "Start the workflow that the policy names, or add a policy for this one."


def called_workflow(wanted: str, run: WorkflowIdentity) -> str:
    """Why the called workflow is another: most often the caller was meant, or another version is called."""
    actual = run.job_workflow_ref or ""
    if wanted == run.workflow_ref:
        return (
            "This is the workflow that was started, which `workflow` covers by its file name; `calledWorkflow` is the "
            f"reusable one that runs the job, here {actual or 'none'}."
        )
    if wanted.casefold() == actual.casefold():
        return (
            "The two differ in the case of their letters only; write the claim `job_workflow_ref` as it is."
        )
    if wanted.partition("@")[0] == actual.partition("@")[0]:
        return "The file is the same, the version after `@` is not; call the version that the policy names."
    return "The claim `job_workflow_ref` must be equal, character for character; call the workflow that the policy names."


def runner(wanted: str) -> str:
    """Why the runner is of the wrong kind."""
    return f"Run the job on a {wanted} runner (`runs-on`)."


def visibility(wanted: str) -> str:
    """Why the repository's visibility is another."""
    return f"The policy holds only while the repository is {wanted}; change `visibility` in it if the new one is meant."


def event(run: WorkflowIdentity) -> str:
    """Why an event outside the policy's list is refused."""
    return f"Add {run.event_name} to the policy's `events`, or start the run by one of the listed events."


def default_denied_event(run: WorkflowIdentity) -> str:
    """Why one of the four events is refused although the policy says nothing about events."""
    return (
        f"Somebody without write access can cause {run.event_name}, so a policy covers it only where its `events` "
        "lists it by name; list it if this workflow runs no code of theirs."
    )


def agent(policys: UUID | None, asked: UUID | None) -> str:
    """Why a policy of the same repository is no candidate."""
    if policys is None:
        return "This is a bootstrap policy, for registering agents; add a policy with this `agentId`."
    if asked is None:
        return "This policy is for one agent; ask with its `agentId`, or add a bootstrap policy without one."
    return "This policy is for another agent; correct the `agentId` that you ask with, or add a policy for this one."
