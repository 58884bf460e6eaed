"""The model with its activations transformed: what is observed, and what Q/DQ pairs are put into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.qdq import LayerSite, layer_site
from edgeformer.quantization.settings import Settings, Sites
from edgeformer.quantization.smoothquant import apply_transforms

__all__ = ["MovedModel"]


@dataclass(frozen=True)
class MovedModel:
    """A model with its activations transformed.

    Attributes:
        index: of it.
        sites: its INT8 layers.
        renamed: activation -> the tensor that they read in its place, where that is another one.
    """

    index: GraphIndex
    sites: tuple[LayerSite, ...]
    renamed: Mapping[str, str]

    @classmethod
    def of(cls, sites: Sites, settings: Settings) -> MovedModel:
        """The model under some settings."""
        model, renamed = apply_transforms(sites, settings.transforms, settings.layers)
        index = GraphIndex(model)
        found = [layer_site(index, index.producer[name]) for name in sites.of_output if name in settings.layers]
        return cls(index, tuple(site for site in found if isinstance(site, LayerSite)), renamed)

    def reads(self, tensor: str) -> bool:
        """Whether an INT8 layer reads this activation of the model as it was."""
        name = self.renamed.get(tensor, tensor)
        return any(site.activation == name for site in self.sites)
