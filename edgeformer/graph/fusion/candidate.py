"""What can be read off the graph about a candidate before anything is run."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgeformer.graph.fusion.anchors import Anchors
from edgeformer.graph.fusion.dataflow import Dataflow
from edgeformer.graph.fusion.escapes import find_escapes
from edgeformer.graph.fusion.projection import Route, find_routes
from edgeformer.graph.protos import is_standard

__all__ = ["Candidate"]


@dataclass
class Candidate:
    """Everything about a candidate that can be read off the graph.

    Attributes:
        anchors: its fixed points.
        routes: where the op could start.
        scope: every node whose static inputs may be needed.
        data: every tensor whose shape may be needed.
    """

    anchors: Anchors
    routes: list[Route]
    scope: list[int] = field(default_factory=list)
    data: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, flow: Dataflow, anchors: Anchors) -> Candidate:
        """Collect it."""
        routes = find_routes(flow, anchors.tail[0])
        candidate = cls(anchors, routes)
        topk, softmax = flow.nodes[anchors.topk], flow.nodes[anchors.softmax]
        candidate.data = [topk.input[0], topk.output[1], softmax.input[0], *anchors.tail]
        if not routes:
            return candidate
        region = candidate.region(flow)
        escapes = find_escapes(flow, region, anchors.tail[-1], ())
        chains = [chain for escape in escapes for chain in escape.chains]
        outside = [index for escape in escapes for index in escape.nodes]
        outside += [index for chain in chains for index in chain.nodes]
        candidate.scope = sorted({*region, *outside})
        candidate.data += [route.tensor for route in routes]
        links = [link for route in routes for link in route.links]
        candidate.data += [name for link in links for name in link.operands]
        candidate.data += [flow.nodes[link.node].output[0] for link in links]
        candidate.data += [name for chain in chains for name in (chain.source, chain.target)]
        return candidate

    def region(self, flow: Dataflow) -> list[int]:
        """All nodes from the topmost tensor at which the op could start to the end; none where there is no such one."""
        if not self.routes:
            return []
        top = min((route.tensor for route in self.routes), key=lambda name: flow.producer.get(name, -1))
        return flow.between(top, [self.anchors.tail[-1]])

    def statics(self, flow: Dataflow) -> set[str]:
        """Static tensors, other than constants, that the scope reads."""
        names = {name for index in self.scope for name in flow.reads(index) if name in flow.static}
        operands = {name for route in self.routes for link in route.links for name in link.operands}
        made = {name for name in names - operands if name in flow.producer}
        return {name for name in made if not is_standard(flow.nodes[flow.producer[name]], "Constant")}
