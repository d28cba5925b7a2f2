"""Conditions of a policy, by the kind of their value: a text, a list, a flag or a map of lists."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import contains, eq
from typing import Any, ClassVar, Literal

from sentryagent_idp.domain import policy_syntax
from sentryagent_idp.domain.identity import CLAIM_PREFIXES, WorkflowIdentity
from sentryagent_idp.domain.text import visible


@dataclass(frozen=True, slots=True)
class FailedCondition:
    """A condition that the run does not meet: the policy's value, the run's value, a hint and the compared claims."""

    condition: str
    expected: Any
    actual: Any
    hint: str
    claims: tuple[str, ...] = ()


def _visible(value: Any) -> Any:
    """The value as people see it; a list entry by entry."""
    if isinstance(value, str):
        return visible(value)
    return tuple(map(_visible, value)) if isinstance(value, tuple) else value


def _look_alike_hint(wanted: Any, actual: Any) -> str:
    """A hint that shows both values, with all non-ASCII characters escaped."""
    return (
        "They look alike, but differ in Unicode normalization or in invisible characters: the policy has "
        f"{wanted!a}, the run has {actual!a}. Copy the name from GitHub into the policy, or rename it on GitHub."
    )


def _canonical(value: Any) -> Any:
    """The value in a form that is the same for all lists with the same entries, also within a map."""
    if isinstance(value, Mapping):
        return {name: _canonical(entries) for name, entries in value.items()}
    return sorted(set(value)) if isinstance(value, tuple) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """How a condition is written, compared and explained; its value is a text, and another kind in the subclasses.

    `actual` is the attribute of `WorkflowIdentity` that the value is compared with; `claims` are the claims from which
    that attribute is built, if it is not a claim itself. `problem` says what is wrong with a value (for a list, with an
    entry): a sentence without its full stop, or `None`. `words` are all possible values, if they can be listed.
    `matches` compares the policy's value with the run's, `canonical` gives all equal values the same form, and `hint`
    says what to do if policy and run differ. `json_name` is the field's name in the API.
    """

    actual: str
    hint: Callable[[Any, WorkflowIdentity], str]
    problem: Callable[[Any], str | None]
    words: tuple[str, ...] = ()
    matches: Callable[[Any, Any], bool] = eq
    canonical: Callable[[Any], Any] = _canonical
    claims: tuple[str, ...] = ()
    json_name: str = ""
    json_type: ClassVar[Any] = str

    def failure(self, wanted: Any, run: WorkflowIdentity) -> FailedCondition | None:
        """Why the run does not meet the condition, or `None` if it does; an absent claim never meets it."""
        actual = getattr(run, self.actual)
        if actual is not None and self.matches(wanted, actual):
            return None
        hint = _look_alike_hint(wanted, actual) if self._looks_met(wanted, actual) else self.hint(wanted, run)
        claims = self.claims or (self.actual,)
        actual = actual or getattr(run, claims[0])
        return FailedCondition(self.json_name, wanted, actual, hint, claims)

    def _looks_met(self, wanted: Any, actual: Any) -> bool:
        """Whether the values would match if they were as people see them."""
        shown = _visible(wanted), _visible(actual)
        return actual is not None and shown != (wanted, actual) and self.matches(*shown)

    def suggested(self, wanted: Any, run: WorkflowIdentity) -> Any:  # noqa: ARG002 - `Mapped` uses it
        """The value that this run meets, or `None` if a policy cannot have it."""
        actual = getattr(run, self.actual)
        return None if actual is None or self.problem(actual) is not None else actual


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed(Condition):
    """A list; the run's value must be one of its entries."""

    matches: Callable[[Any, Any], bool] = contains
    json_type: ClassVar[Any] = list[str]

    def suggested(self, wanted: Any, run: WorkflowIdentity) -> Any:
        """A list of the run's value alone."""
        actual = Condition.suggested(self, wanted, run)
        return None if actual is None else (actual,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag(Condition):
    """A flag whose only value is `True`; the claim must be the text `true`, as GitHub writes it."""

    problem: Callable[[Any], str | None] = policy_syntax.flag
    matches: Callable[[Any, Any], bool] = lambda _, actual: actual == "true"
    json_type: ClassVar[Any] = Literal[True]

    def suggested(self, wanted: Any, run: WorkflowIdentity) -> Any:  # noqa: ARG002 - the other kinds' signature
        """`None`: there is no other value to suggest."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped(Condition):
    """A map of lists, one for each of several claims with a common prefix; `actual` has the claims without the prefix.

    A claim may join several values with commas; each of them must be in the list. Whole values are compared, so
    that `prod` is not met by `nonprod` or by `prod,evil` (A19).
    """

    matches: Callable[[Any, Any], bool] = lambda listed, claim: set(claim.split(",")) <= set(listed)
    json_type: ClassVar[Any] = dict[str, list[str]]

    def failure(self, wanted: Any, run: WorkflowIdentity) -> FailedCondition | None:
        """Why the run does not meet the condition, or `None` if it does; shows all claims that the policy names."""
        given = getattr(run, self.actual)
        if all(name in given and self.matches(listed, given[name]) for name, listed in wanted.items()):
            return None
        actual = {name: given.get(name) for name in wanted}
        claims = tuple(f"{CLAIM_PREFIXES[self.actual]}{name}" for name in wanted)
        looks_met = all(
            name in given and (self.matches(listed, given[name]) or self._looks_met(listed, given[name]))
            for name, listed in wanted.items()
        )
        hint = _look_alike_hint(wanted, actual) if looks_met else self.hint(wanted, run)
        return FailedCondition(self.json_name, wanted, actual, hint, claims)

    def suggested(self, wanted: Any, run: WorkflowIdentity) -> Any:
        """The policy's lists, with the run's values where it does not meet them; `None` if the run lacks a claim."""
        given = getattr(run, self.actual)
        if not wanted.keys() <= given.keys():
            return None
        value = {
            name: listed if self.matches(listed, given[name]) else tuple(given[name].split(","))
            for name, listed in wanted.items()
        }
        return None if self.problem(value) is not None else value
