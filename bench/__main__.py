"""`python -m bench`: start every server that this machine can run, race them, and write bench/results/."""

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import chart, growth, machine, oidc_provider, openbao, postgresql, provider, report
from bench.load import LoadFailed
from bench.measurement import CheckFailed, Contender, Race
from bench.processes import Unavailable, processor_seconds
from bench.subject import Entrant, Surroundings
from bench.workload import TokenKind, describe, mint
from mock_idp.server import MockIdp

PAGE = Path(__file__).parent / "results" / "exchange.md"
CHART = PAGE.with_suffix(".svg")
TITLE = "Tokens a second"
_LONGEST_TURN = 15
_WORKERS = 2
"""The provider's own choice on two cores, which most users get."""


def main() -> None:
    """Race as the command line says; exits with 1 if a server returned anything but tokens."""
    parser = argparse.ArgumentParser(
        prog="bench", description="Benchmark the provider against its peers; needs 3 GB in TMPDIR."
    )
    parser.add_argument(
        "--duration", type=_duration, default=2.5, help="seconds per turn  [default: %(default)s]"
    )
    parser.add_argument("--rounds", type=_rounds, default=5, help="turns per server  [default: %(default)s]")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="only the servers with TEXT in their name; writes no file"
    )
    options = parser.parse_args()
    # As with Ctrl-C, ending the benchmark ends its servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: told to stop"))
    began = time.monotonic()
    try:
        run(options.duration, options.rounds, options.only)
    except (LoadFailed, Unavailable, CheckFailed) as error:
        sys.exit(f"bench: {error}")
    say(f"Took {time.monotonic() - began:.0f} s.")


def _duration(text: str) -> float:
    seconds = float(text)
    # One server after the other uses the tokens of a round, which live for five minutes, as GitHub's do.
    if not 0.5 <= seconds <= _LONGEST_TURN:
        raise argparse.ArgumentTypeError(
            f"{text} s: must be from 0.5 to {_LONGEST_TURN}; for more precision, raise the rounds"
        )
    return seconds


def _rounds(text: str) -> int:
    rounds = int(text)
    if rounds < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be 1 or more")
    return rounds


def run(seconds: float, rounds: int, only: str) -> None:
    """Start the servers, race them, write the report and stop everything."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sentryagent-bench-")))
        circumstances = machine.describe(folder)
        github = stack.enter_context(MockIdp())
        contenders, skipped = start(stack, Surroundings(folder, github), only)
        reference = _reference(contenders)
        signers = stack.enter_context(mint(github.state.ring.signing, github.issuer))
        strangers = _share_of_strangers(contenders)
        Race(contenders, reference, signers, seconds, say).run(rounds)
        circumstances["processor used by other programs in the meantime"] = f"{100 * strangers():.0f} %"
        token = describe(signers.tokens(TokenKind.GITHUB, 1)[0])
        setting = report.Setting(seconds, rounds, token, circumstances, skipped)
        page = report.page(contenders, reference, setting, CHART.name)
        say(f"\n{page}")
        if not only:
            write(page, contenders)


def _share_of_strangers(contenders: Sequence[Contender]) -> Callable[[], float]:
    """Return a function that returns the share of the processor that other programs have taken from now on."""
    roots = {os.getpid(), *(root for it in contenders for root in it.subject.roots)}
    before, strangers = processor_seconds(roots), machine.Strangers()
    return lambda: strangers.share(processor_seconds(roots) - before)


def entrants(stack: ExitStack, skipped: dict[str, str]) -> list[Entrant]:
    """Return the servers that take part, in the order of the table."""
    found = [provider.on_sqlite(1), provider.on_sqlite(_WORKERS)]
    found += [provider.on_sqlite(_WORKERS, more) for more in (growth.POLICIES, growth.USED_TOKENS)]
    try:
        cluster = stack.enter_context(postgresql.cluster())
        found += [provider.on_postgresql(cluster, workers) for workers in (1, 2, 4)]
    except Unavailable as reason:
        skipped["provider, PostgreSQL"] = str(reason)
    return [*found, *openbao.entrants(), *oidc_provider.entrants()]


def start(stack: ExitStack, around: Surroundings, only: str) -> tuple[list[Contender], dict[str, str]]:
    """Start the servers; return those that run, and the reasons of those that cannot run here."""
    contenders: list[Contender] = []
    skipped: dict[str, str] = {}
    for entrant in entrants(stack, skipped):
        if only not in entrant.name:
            continue
        say(f"starting {entrant.name}")
        try:
            contenders.append(Contender(entrant, stack.enter_context(entrant.start(around))))
        except Unavailable as reason:
            skipped[entrant.name] = str(reason)
    for name, why in skipped.items():
        say(f"not measured: {name}: {why}")
    if not contenders:
        raise Unavailable("no server to measure; --only must match part of a server's name")
    return contenders, skipped


def _reference(contenders: Sequence[Contender]) -> Contender:
    """Return the provider with its default settings or, without it, the first server."""
    default = provider.on_sqlite(_WORKERS).name
    return next((it for it in contenders if it.entrant.name == default), contenders[0])


def write(page: str, contenders: Sequence[Contender]) -> None:
    """Write the page and the chart to bench/results/."""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page)
    CHART.write_text(chart.draw(TITLE, [_bar(it) for it in contenders]))
    say(f"Written to bench/{PAGE.parent.name}/: {PAGE.name} and {CHART.name}.")


def _bar(contender: Contender) -> chart.Bar:
    rates = [it.rate for it in contender.slices]
    return chart.Bar(
        contender.entrant.name, statistics.median(rates), min(rates), max(rates), contender.entrant.is_ours
    )


def say(line: str) -> None:
    """Print a line and flush it, because a run takes minutes."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
