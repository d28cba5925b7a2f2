"""The results as a page: a table, how to read it, and the machine. Pure."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.measurement import UNDISTURBED, Contender, HalfLoad

_HEAD = (
    "| server | on disk when a token leaves | tokens/s | lowest to highest | ratio | processor, ms/token | p50, ms "
    "| p99, ms | bytes/token | a used token |\n"
    "|---|---|--:|--:|--:|--:|--:|--:|--:|---|"
)


@dataclass(frozen=True, slots=True)
class Setting:
    """How it was measured: `skipped` has each server that was not measured, with the reason."""

    seconds: float
    rounds: int
    token: str
    machine: Mapping[str, str]
    skipped: Mapping[str, str]


def ratio(contender: Contender, reference: Contender) -> float:
    """Return the contender's tokens per token of the reference: the median over rounds, each of which is a comparison."""
    pairs = zip(contender.slices, reference.slices, strict=True)
    return statistics.median(mine.rate / its.rate for mine, its in pairs)


def page(contenders: Sequence[Contender], reference: Contender, setting: Setting, chart: str) -> str:
    """Return the whole page in Markdown; `chart` is the file name of the chart."""
    rows = "\n".join(_row(it, reference) for it in contenders)
    parts = [
        "# A signed token in, an access token out: the provider compared with others",
        _introduction(setting),
        f"![Tokens a second]({chart})",
        f"{_HEAD}\n{rows}",
        *(f"Not measured: {name}: {reason}" for name, reason in setting.skipped.items()),
        _reading(reference, setting.token),
        *_growth(contenders, reference),
        "## Latency at half load",
        _half_loads(reference),
        "## Measured on",
        _circumstances(contenders, setting.machine),
    ]
    return "\n\n".join(parts) + "\n"


def _introduction(setting: Setting) -> str:
    return (
        f"Written by `make bench`. Rounds: {setting.rounds}. In each round, every server has one turn of "
        f"{setting.seconds:g} s, one after the other; the figures are medians over the rounds."
    )


def _row(contender: Contender, reference: Contender) -> str:
    rates = [it.rate for it in contender.slices]
    cells = [
        f"**{contender.entrant.name}**" if contender.entrant.is_ours else contender.entrant.name,
        contender.entrant.keeps,
        f"{contender.rate:,.0f}",
        f"{min(rates):,.0f} to {max(rates):,.0f}",
        f"{ratio(contender, reference):.2f}",
        f"{statistics.median(it.processor_ms for it in contender.slices):.2f}",
        *(f"{contender.half_loads[UNDISTURBED].percentile(percent):.1f}" for percent in (50, 99)),
        "" if contender.bytes_per_token is None else f"{contender.bytes_per_token:,.0f}",
        "accepted again" if contender.takes_used else "refused",
    ]
    return f"| {' | '.join(cells)} |"


def _reading(reference: Contender, token: str) -> str:
    return (
        "How to read it:\n\n"
        f"- Every request has its own token ({token}; RS256, 2048 bits), signed before the clock starts. "
        "OpenBao gets the same tokens as the provider; oidc-provider gets the same claims as a client assertion.\n"
        "- Each response must be a 200 with a token, or the run fails. Afterwards the provider's audit must have one "
        "record for each token, in an unbroken chain, OpenBao's store one service token for each, and a used token "
        "is sent once more (oidc-provider keeps the last one or two thousand in memory).\n"
        f"- ratio: tokens per token of “{reference.entrant.name}” in the same round. More than 1 means faster.\n"
        "- processor: time of all processes of the server, including its database and the work after the response "
        "(the provider seals its audit).\n"
        "- If other programs used much of the processor in the meantime, compare only ratios and processor time.\n"
        "- p50 and p99: at half of the server's own rate, measured from the time at which a request is due.\n"
        "- All servers run with their defaults, except for rate limits, which are off; OpenBao has no audit device."
    )


def _growth(contenders: Sequence[Contender], reference: Contender) -> list[str]:
    grown = [(it, it.entrant.growth) for it in contenders if it.entrant.growth and it is not reference]
    if not grown:
        return []
    lines = (f"- {ratio(it, reference):.2f} with {more} {more.remark}" for it, more in grown)
    heading = f"Tokens per token of “{reference.entrant.name}” in the same round, with as many workers:"
    return ["## Growth", heading, "\n".join(lines)]


def _half_loads(contender: Contender) -> str:
    heading = f"“{contender.entrant.name}” at half of its rate; whatever happens in the meantime takes its share of the processor:"
    rows = (_half_load(*it) for it in contender.half_loads.items())
    return "\n".join([f"{heading}\n\n| meanwhile | times | p50, ms | p99, ms |\n|---|--:|--:|--:|", *rows])


def _half_load(disturbance: str, half: HalfLoad) -> str:
    meanwhile = f"{disturbance} | {half.disturbed}" if disturbance else "nothing | "
    return f"| {meanwhile} | {half.percentile(50):.1f} | {half.percentile(99):.1f} |"


def _circumstances(contenders: Sequence[Contender], machine: Mapping[str, str]) -> str:
    versions = {it.entrant.name: it.subject.version for it in contenders}
    return "\n".join(f"- {name}: {value}" for name, value in {**machine, **versions}.items())
