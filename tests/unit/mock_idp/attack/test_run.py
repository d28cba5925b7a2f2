import itertools

import pytest

from mock_idp.attack.catalogue import CONTROL, Attack, Result
from mock_idp.attack.run import ControlRefusedError, fire

EXPIRED, UNSIGNED = Attack("expired", "too late", "expired"), Attack("alg-none", "unsigned", "alg-none")


class Target:
    """Gives each attack its planned verdict."""

    def __init__(self, **verdicts):
        self.fired = []
        self._verdicts = verdicts

    def fire(self, attack):
        self.fired.append(attack.name)
        return Result(attack, self._verdicts.get(attack.fault or attack.name, "refused"), 403, "note", 0.1)


def _fire(target, attacks, limit=10.0, monotonic=lambda: 0.0):
    return {result.attack.name: result.verdict for result in fire(target, attacks, limit, monotonic)}


def test_one_attack_is_fired_after_the_other():
    """The control is sent first, then one attack after another."""
    target = Target(control="accepted", expired="broken")

    assert _fire(target, [CONTROL, EXPIRED, UNSIGNED]) == {
        "control": "accepted",
        "expired": "broken",
        "alg-none": "refused",
    }
    assert target.fired == ["control", "expired", "alg-none"]


def test_a_refused_control_ends_the_run_before_any_attack():
    """A refused control ends the run: a verifier that refuses everything would look perfect."""
    target = Target()

    with pytest.raises(ControlRefusedError, match="403 note"):
        _fire(target, [CONTROL, EXPIRED])
    assert target.fired == ["control"]


def test_what_is_left_when_the_time_is_over_counts_as_not_done():
    """Attacks that the time limit cuts off count as not sent, and the run does not succeed."""
    ticks = itertools.count(0, 4)

    results = list(fire(Target(control="accepted"), [CONTROL, EXPIRED, UNSIGNED], 5, lambda: next(ticks)))

    assert [result.verdict for result in results] == ["accepted", "not sent", "not sent"]
    assert not results[1].is_as_expected
