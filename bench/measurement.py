"""The race: every server in turn, round after round, so that a busy machine slows all of them alike."""

import math
import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from bench import sockets, wrk
from bench.disturbance import Count
from bench.load import LoadFailed, Outcome
from bench.processes import await_quiet, processor_seconds
from bench.subject import Entrant, Subject
from bench.workload import Mint, TokenKind

WARM_UP_SECONDS = 1.0
_FIRST_GUESS = 4000
"""An upper bound for tokens per second, before the first measurement."""
_RESERVE = 1.3
"""The ratio of signed tokens to those that the fastest server needed."""
_DISTURBED_TURNS = 3
"""How many turns a disturbance lasts, so that it happens several times."""


class CheckFailed(Exception):
    """A server's own count differs from its responses, or it accepted a used token; the message says which."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One server's turn: tokens per second, and milliseconds of processor time for each token."""

    rate: float
    processor_ms: float


@dataclass(frozen=True, slots=True)
class HalfLoad:
    """Latencies at half of a server's rate, in seconds, and the number of disturbances meanwhile."""

    latencies: Sequence[float]
    disturbed: int = 0

    def percentile(self, percent: int) -> float:
        """Return a percentile of the latencies in milliseconds."""
        return 1000 * statistics.quantiles(self.latencies, n=100, method="inclusive")[percent - 1]


UNDISTURBED = ""
"""The key of the latencies without a disturbance."""
_NOTHING = nullcontext[Count](lambda: 0)


@dataclass(slots=True)
class Contender:
    """A server in the race, and its measurements; `half_loads` has the name of the disturbance as key."""

    entrant: Entrant
    subject: Subject
    slices: list[Slice] = field(default_factory=list)
    half_loads: dict[str, HalfLoad] = field(default_factory=dict)
    handed_out: int = 0
    bytes_per_token: float | None = None
    takes_used: bool = False
    fastest: float = _FIRST_GUESS
    _size_before: int = 0
    _used: bytes = b""

    def __post_init__(self) -> None:
        self._size_before = self.subject.size() if self.subject.size else 0

    @property
    def rate(self) -> float:
        """The median of the rounds, in tokens per second."""
        return statistics.median(it.rate for it in self.slices)

    def take_turn(self, tokens: Sequence[str], seconds: float) -> Slice:
        """Request as many tokens as the server can issue; raises `LoadFailed` for a response without a token."""
        before = processor_seconds(self.subject.roots)
        outcome = self._load(tokens, lambda requests: _most(self.subject, requests, seconds))
        # Work that a server does later, such as sealing its audit log, is part of the price.
        await_quiet(self.subject.roots)
        spent = processor_seconds(self.subject.roots) - before
        return Slice(outcome.rate, 1000 * spent / outcome.tokens)

    def take_half(
        self, tokens: Sequence[str], seconds: float, disturbance: AbstractContextManager[Count]
    ) -> HalfLoad:
        """Measure latencies at half of the server's rate; raises `LoadFailed`."""
        with sockets.pacer() as paced, disturbance as count:
            outcome = self._load(
                tokens, lambda requests: paced(self.subject.target, requests, seconds, self.rate / 2)
            )
            disturbed = count()
        await_quiet(self.subject.roots)
        return HalfLoad(outcome.latencies, disturbed)

    def _load(self, tokens: Sequence[str], drive: Callable[[Sequence[bytes]], Outcome]) -> Outcome:
        requests = [self.subject.request(token) for token in tokens]
        outcome = drive(requests)
        if outcome.refused or not outcome.in_time:
            raise LoadFailed(
                f"{self.entrant.name}: {outcome.refused} responses without a token; the first: {outcome.first_refusal}"
            )
        self.handed_out += outcome.tokens
        self._used = requests[0]
        return outcome

    def check_results(self) -> None:
        """Compare the server's own count with the tokens received, and send a used one; raises `CheckFailed`."""
        subject = self.subject
        issued = subject.issued() if subject.issued else self.handed_out
        if issued != self.handed_out:
            raise CheckFailed(f"{self.entrant.name}: issued {self.handed_out} tokens but counts {issued}")
        problem = subject.check() if subject.check else ""
        if subject.size:
            self.bytes_per_token = (subject.size() - self._size_before) / self.handed_out
        self.takes_used = not sockets.most(subject.target, [self._used], 1.0).refused
        if self.takes_used and self.entrant.is_ours:
            problem = "it accepted a used token"
        if problem:
            raise CheckFailed(f"{self.entrant.name}: {problem}")


def _most(subject: Subject, requests: Sequence[bytes], seconds: float) -> Outcome:
    program = wrk.program()
    if program is None:
        return sockets.most(subject.target, requests, seconds)
    return wrk.most(program, subject.target, requests, seconds)


@dataclass(frozen=True, slots=True)
class Race:
    """All contenders and the means to measure them; `seconds` is the length of a turn.

    The others are compared with the `reference`, which is also the contender that is disturbed.
    """

    contenders: Sequence[Contender]
    reference: Contender
    mint: Mint
    seconds: float
    say: Callable[[str], None]

    def run(self, rounds: int) -> None:
        """Measure everything; raises `LoadFailed` and `CheckFailed`."""
        self._warm_up()
        for number in range(rounds):
            self._round(number, rounds)
        for contender in self.contenders:
            self._half_load(contender, UNDISTURBED, _NOTHING, self.seconds)
        for disturbance in self.reference.subject.disturbances:
            seconds = _DISTURBED_TURNS * self.seconds
            self._half_load(self.reference, disturbance.name, disturbance.during(), seconds)
        for contender in self.contenders:
            contender.check_results()

    def _warm_up(self) -> None:
        """Fill caches and pools, and learn how many tokens a turn needs."""
        piles = self._piles(WARM_UP_SECONDS)
        for contender in self.contenders:
            turn = contender.take_turn(piles[contender.subject.kind], WARM_UP_SECONDS)
            contender.fastest = turn.rate
            self.say(f"warm-up: {contender.entrant.name}: {turn.rate:,.0f} tokens/s")

    def _round(self, number: int, rounds: int) -> None:
        """Give each server one turn, on the same tokens: a server only knows those that it has seen itself.

        Each round begins with another server, so that none is always first or last.
        """
        piles = self._piles(self.seconds)
        for contender in (*self.contenders[number:], *self.contenders[:number]):
            turn = contender.take_turn(piles[contender.subject.kind], self.seconds)
            contender.slices.append(turn)
            contender.fastest = max(contender.fastest, turn.rate)
            self.say(f"round {number + 1} of {rounds}: {contender.entrant.name}: {turn.rate:,.0f} tokens/s")

    def _half_load(
        self, contender: Contender, disturbance: str, during: AbstractContextManager[Count], seconds: float
    ) -> None:
        tokens = self.mint.tokens(contender.subject.kind, math.ceil(contender.rate / 2 * seconds))
        half = contender.take_half(tokens, seconds, during)
        contender.half_loads[disturbance] = half
        meanwhile = f", {disturbance} (times: {half.disturbed})" if disturbance else ""
        p50, p99 = half.percentile(50), half.percentile(99)
        self.say(f"half load: {contender.entrant.name}{meanwhile}: p50 {p50:.1f} ms, p99 {p99:.1f} ms")

    def _piles(self, seconds: float) -> dict[TokenKind, Sequence[str]]:
        """Sign new tokens of each kind, enough for a turn of the fastest server."""
        fastest: dict[TokenKind, float] = {}
        for contender in self.contenders:
            kind = contender.subject.kind
            fastest[kind] = max(fastest.get(kind, 0.0), contender.fastest)
        return {
            kind: self.mint.tokens(kind, math.ceil(rate * seconds * _RESERVE))
            for kind, rate in fastest.items()
        }
