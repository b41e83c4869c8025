"""Leaves out of a plan whatever it fails without, so that a person can read what is left."""

from collections.abc import Callable, Iterator

from tests.simulation.plan import Plan

MOST_RUNS = 400
"""After so many runs what is left must do."""

Fails = Callable[[Plan], bool]


def shrink(plan: Plan, fails: Fails, most_runs: int = MOST_RUNS) -> Plan:
    """Returns the smallest plan that was found to fail; the given one is known to.

    First it ends soon, then it leaves out events, many at once and then fewer, then devices, groups, replicas and the
    skew of clocks, and then events once more, one by one.
    """
    left = [most_runs]

    def still_fails(candidate: Plan) -> bool:
        left[0] -= 1
        return left[0] >= 0 and fails(candidate)

    if plan.is_long and still_fails(plan._replace(is_long=False)):
        plan = plan._replace(is_long=False)
    size = max(1, len(plan.events) // 2)
    while size:
        plan = _leave_out(plan, size, still_fails)
        size //= 2
    for simpler in _simpler:
        candidate = simpler(plan)
        if candidate != plan and still_fails(candidate):
            plan = candidate
    return _leave_out(plan, 1, still_fails)


def _leave_out(plan: Plan, size: int, fails: Fails) -> Plan:
    at = 0
    while at < len(plan.events):
        candidate = plan._replace(events=plan.events[:at] + plan.events[at + size :])
        if fails(candidate):
            plan = candidate
        else:
            at += size
    return plan


def _one_of(name: str) -> Callable[[Plan], Plan]:
    return lambda plan: plan._replace(replicas={**plan.replicas, name: 1})


_simpler: tuple[Callable[[Plan], Plan], ...] = (
    lambda plan: plan._replace(skew_s=0.0),
    lambda plan: plan._replace(network=1.0),
    lambda plan: plan._replace(ledger_s=0.002),
    lambda plan: plan._replace(second_devices=0),
    lambda plan: plan._replace(groups=min(plan.groups, 1)),
    lambda plan: plan._replace(groups=0),
    *(_one_of(name) for name in ("presence", "fanout", "message", "edge")),
    lambda plan: plan._replace(users=2),
)


def told(plan: Plan) -> Iterator[str]:
    """Says a plan in lines."""
    replicas = ", ".join(f"{count} svc_{name}" for name, count in plan.replicas.items())
    yield (
        f"seed {plan.seed}: {plan.users} users, {plan.second_devices} of them with two devices, {plan.groups} groups, "
        f"{replicas}, clocks up to {plan.skew_s:g} s wrong, {plan.ledger_s:g} s to the store, "
        f"a network {plan.network:g} times slower than the best"
    )
    yield from map(str, plan.events)
