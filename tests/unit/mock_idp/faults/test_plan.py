from pathlib import Path

import mock_idp
from mock_idp.faults.plan import FaultPlan, PlannedFault, fault_names


def _statuses(plan, number):
    return [fault.status if (fault := plan.next("jwks")) else 200 for _ in range(number)]


def test_counted_faults_queue_up_and_then_all_is_well():
    """Each fault happens as often as planned, in the order of planning; then requests succeed."""
    plan = FaultPlan()
    plan.add(PlannedFault("jwks", status=503, times=2))
    plan.add(PlannedFault("jwks", status=500, times=1))

    assert _statuses(plan, 5) == [503, 503, 500, 200, 200]


def test_faults_by_chance_are_the_same_in_every_run():
    """The seed decides which requests fail; another seed picks others."""
    runs = []
    for seed in (7, 7, 8):
        plan = FaultPlan()
        plan.add(PlannedFault("jwks", status=503, rate=0.5, seed=seed))
        runs.append(_statuses(plan, 40))

    assert runs[0] == runs[1] != runs[2]
    assert {503, 200} == set(runs[0])


def test_only_a_fault_that_happens_is_counted():
    """`times` counts faults, not requests."""
    plan = FaultPlan()
    plan.add(PlannedFault("jwks", status=503, rate=0.3, times=3))

    assert _statuses(plan, 200).count(503) == 3


def test_what_is_pending_tells_how_often():
    """A pending fault has the number of times left, or `None` if it lasts until it is cleared."""
    plan = FaultPlan()
    once, always = PlannedFault("jwks", status=503, times=2), PlannedFault("token", fault="reset")
    plan.add(once)
    plan.add(always)
    plan.next("jwks")

    assert plan.pending() == [(once, 1), (always, None)]


def test_the_catalogue_is_documented():
    """The manual names every fault."""
    manual = (Path(mock_idp.__file__).parent / "README.md").read_text("utf-8")

    names = {name for endpoint in ("token", "discovery", "jwks") for name in fault_names(endpoint)}
    assert [name for name in sorted(names) if f"`{name}`" not in manual] == []
