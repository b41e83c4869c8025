"""NetworkPolicies as data: answers whether one pod may open a connection to another."""

from typing import Any, NamedTuple

Selector = dict[str, Any]


class Pod(NamedTuple):
    """What a policy sees of a pod."""

    labels: dict[str, str]
    namespace: str = "chappe"


class Network:
    """Evaluates the policies of one namespace; in the others everything is allowed."""

    def __init__(self, policies: list[dict[str, Any]], namespace: str = "chappe") -> None:
        self._specs = [policy["spec"] for policy in policies]
        self._namespace = namespace

    def allows(self, source: Pod, target: Pod, port: int, protocol: str = "TCP") -> bool:
        """Tells whether both ends let the connection through."""
        way = port, protocol
        return self._passes(source, "egress", target, way) and self._passes(target, "ingress", source, way)

    def _passes(self, pod: Pod, direction: str, other: Pod, way: tuple[int, str]) -> bool:
        if pod.namespace != self._namespace:
            return True
        specs = [
            spec
            for spec in self._specs
            if direction.title() in spec["policyTypes"] and matches(spec["podSelector"], pod.labels)
        ]
        rules = [rule for spec in specs for rule in spec.get(direction, [])]
        # A pod that no policy of the direction selects is open.
        return not specs or any(self._covers(rule, direction, other, way) for rule in rules)

    def _covers(self, rule: dict[str, Any], direction: str, other: Pod, way: tuple[int, str]) -> bool:
        peers = rule.get("to" if direction == "egress" else "from", [])
        ports = [(one["port"], one["protocol"]) for one in rule.get("ports", [])]
        return (not ports or way in ports) and (not peers or any(self._is_peer(peer, other) for peer in peers))

    def _is_peer(self, peer: dict[str, Any], other: Pod) -> bool:
        if "namespaceSelector" in peer:
            is_there = matches(peer["namespaceSelector"], {"kubernetes.io/metadata.name": other.namespace})
        else:
            is_there = other.namespace == self._namespace
        return is_there and matches(peer.get("podSelector", {}), other.labels)


def matches(selector: Selector, labels: dict[str, str]) -> bool:
    """Tells whether a selector, which may only use matchLabels, selects labels; an empty one selects everything."""
    assert selector.keys() <= {"matchLabels"}, f"teach this function {sorted(selector)}"
    wanted: dict[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()
