"""List the node classes that a server has."""

from genonaut.local.comfy import nodes_image, nodes_sampling, nodes_synthetic
from genonaut.local.comfy.node import NodeClass

Registry = dict[str, NodeClass]


def registry(*, synthetic: bool = False) -> Registry:
    """Give the node classes by name, with the transcripts' synthetic ones on request."""
    classes = [*nodes_sampling.NODES, *nodes_image.NODES]
    if synthetic:
        classes += nodes_synthetic.NODES
    return {node.name: node for node in classes}
