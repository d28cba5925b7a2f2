"""The benchmark's results for fake servers."""

from contextlib import contextmanager, nullcontext
from xml.etree import ElementTree as ET

import pytest

from bench import chart, growth, measurement, report
from bench.disturbance import Disturbance
from bench.load import Outcome, Target
from bench.measurement import UNDISTURBED, CheckFailed, Contender, HalfLoad, Race, Slice
from bench.subject import Entrant, Subject
from bench.workload import TokenKind

SETTING = report.Setting(1.0, 1, "33 claims", {"memory": "1 GiB"}, {"other": "no npm"})


class FakeMint:
    """A source of tokens that nobody verifies."""

    def tokens(self, kind, count):
        return [f"{kind.value} {number}" for number in range(count)]


def make_contender(name, *, is_ours=True, growth=None, **fields):
    subject = Subject(
        target=Target(1, "access_token", "/health"),
        kind=TokenKind.GITHUB,
        request=str.encode,
        roots=(),
        version="1.0",
        **fields,
    )
    return Contender(Entrant(name, "all of it", lambda _: nullcontext(subject), is_ours, growth), subject)


@pytest.fixture
def answers(monkeypatch):
    """Replace both load generators: every request gets a token; a used token is refused unless `takes_used` is set."""
    told = {"takes_used": False}

    def most(_target, requests, seconds):
        if len(requests) == 1:
            return Outcome(
                seconds, int(told["takes_used"]), int(told["takes_used"]), int(not told["takes_used"])
            )
        return Outcome(seconds, len(requests), len(requests), 0)

    def paced(_target, requests, seconds, _rate):
        return Outcome(seconds, len(requests), len(requests), 0, latencies=[0.002] * len(requests))

    monkeypatch.setattr(measurement.wrk, "program", lambda: None)
    monkeypatch.setattr(measurement.sockets, "most", most)
    monkeypatch.setattr(measurement.sockets, "pacer", lambda: nullcontext(paced))
    monkeypatch.setattr(measurement, "await_quiet", lambda _roots: None)
    return told


def race(*contenders):
    said = []
    Race(contenders, contenders[0], FakeMint(), 0.1, said.append).run(rounds=2)
    return said


def test_each_server_has_a_turn_in_each_round_and_another_one_begins(answers):
    """Each server has a turn in each round, in an order that changes so that none is always first."""
    said = race(make_contender("one"), make_contender("two"))

    turns = [line.rsplit(":", 1)[0] for line in said if line.startswith("round")]
    assert turns == ["round 1 of 2: one", "round 1 of 2: two", "round 2 of 2: two", "round 2 of 2: one"]


def test_books_that_disagree_end_the_run(answers):
    """If a provider's audit does not count as many tokens as were issued, the run fails."""
    contender = make_contender("one", issued=lambda: 7)

    with pytest.raises(CheckFailed, match=r"one: issued \d+ tokens but counts 7"):
        race(contender)


def test_a_broken_chain_ends_the_run(answers):
    """If a provider's audit chain is broken, the run fails."""
    with pytest.raises(CheckFailed, match="one: the chain is broken"):
        race(make_contender("one", check=lambda: "the chain is broken"))


@pytest.mark.parametrize(("is_ours", "outcome"), [(True, pytest.raises(CheckFailed)), (False, nullcontext())])
def test_a_used_token_may_be_taken_by_others_only(answers, is_ours, outcome):
    """Our provider must refuse a replay even in the benchmark; for another server, the table states the outcome."""
    answers["takes_used"] = True
    contender = make_contender("one", is_ours=is_ours)

    with outcome:
        race(contender)

    assert contender.takes_used


def test_a_ratio_is_the_median_of_pairs():
    """A ratio is the median of the rounds' ratios, so a machine that slows down for both servers does not change it."""
    mine, reference = make_contender("mine"), make_contender("reference")
    mine.slices = [Slice(200, 1), Slice(20, 1), Slice(300, 1)]
    reference.slices = [Slice(100, 1), Slice(10, 1), Slice(100, 1)]

    assert report.ratio(mine, reference) == 2.0


def test_the_page_has_a_row_for_each_server_and_the_reason_of_each_missing_one():
    """The page has a row for each measured server, and the reason for each missing one."""
    contender = make_contender("one")
    contender.slices = [Slice(1234, 0.5)]
    contender.half_loads[UNDISTURBED] = HalfLoad([0.001, 0.003])

    page = report.page([contender], contender, SETTING, "chart.svg")

    assert "| **one** | all of it | 1,234 | 1,234 to 1,234 | 1.00 | 0.50 | 2.0 | 3.0 |  | refused |" in page
    assert "Not measured: other: no npm" in page


def test_the_reference_is_disturbed_and_nobody_else(answers):
    """Only the reference is disturbed, and the number of disturbances is recorded with its latencies."""
    told = []

    @contextmanager
    def during():
        told.append("on")
        yield lambda: 3
        told.append("off")

    reference, other = (
        make_contender(name, disturbances=[Disturbance("a storm", during)]) for name in ("one", "two")
    )

    said = race(reference, other)

    assert told == ["on", "off"]
    assert reference.half_loads["a storm"].disturbed == 3
    assert list(other.half_loads) == [UNDISTURBED]
    assert "half load: one, a storm (times: 3): p50 2.0 ms, p99 2.0 ms" in said


def test_the_page_has_the_latencies_of_each_disturbance_also_of_one_that_never_came():
    """The page shows the latencies and the count of each disturbance, even if it never happened."""
    contender = make_contender("one")
    contender.slices = [Slice(100, 1)]
    contender.half_loads = {
        UNDISTURBED: HalfLoad([0.001, 0.001]),
        "a storm": HalfLoad([0.004, 0.004], 7),
        "a war": HalfLoad([0.002, 0.002], 0),
    }

    page = report.page([contender], contender, SETTING, "chart.svg")

    assert "| nothing |  | 1.0 | 1.0 |\n| a storm | 7 | 4.0 | 4.0 |\n| a war | 0 | 2.0 | 2.0 |\n" in page


def test_the_page_compares_what_has_grown_with_the_reference():
    """The page shows each grown database's ratio and load; without grown databases, it has no such section."""
    reference, grown = make_contender("one"), make_contender("two", growth=growth.POLICIES)
    for contender, rate in ((reference, 100), (grown, 93)):
        contender.slices, contender.half_loads[UNDISTURBED] = [Slice(rate, 1)], HalfLoad([0.001, 0.001])

    page = report.page([reference, grown], reference, SETTING, "chart.svg")

    assert (
        "\n- 0.93 with 100,000 policies instead of 10; the load comes from the same 10 repositories\n" in page
    )
    assert "## Growth" not in report.page([reference], reference, SETTING, "chart.svg")


def test_the_chart_is_well_formed_and_longer_bars_are_faster_servers():
    """The chart is well-formed, and a bar's length is proportional to its server's median."""
    bars = [chart.Bar("a <b>", 100, 90, 200, is_ours=True), chart.Bar("c", 50, 40, 60, is_ours=False)]

    drawn = ET.fromstring(chart.draw("Tokens & time", bars))

    widths = [float(it.get("width")) for it in drawn.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert widths[0] == 2 * widths[1]
