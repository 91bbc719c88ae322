"""A method of a module as straight-line code: no module is called in it, and no weight looked up.

Where the tensors are a few rows of a small matrix, a CPU spends a third of its time on those.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, fx, nn


class _Inlining(fx.Tracer):
    """Follows calls into all modules but `opaque` ones."""

    def __init__(self, method: str, opaque: tuple[type[nn.Module], ...]) -> None:
        super().__init__()
        self.traced_func_name = method
        self._opaque = opaque

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, self._opaque)


def straight(module: nn.Module, method: str, opaque: tuple[type[nn.Module], ...] = ()) -> Callable[..., Tensor]:
    """`module`'s method of that name, with the weights that the module has now.

    It must be one whose way does not depend on what its tensors hold, nor on their sizes. Modules of the `opaque`
    classes are called as they are.
    """
    graph = _Inlining(method, opaque).trace(module)
    start, weights = next(iter(graph.nodes)), []
    for node in [node for node in graph.nodes if node.op == "get_attr"]:
        with graph.inserting_before(start):
            node.replace_all_uses_with(graph.placeholder(node.name))
        weights.append(module.get_parameter(node.target))
        graph.erase_node(node)
    code = fx.GraphModule(module, graph)
    run = type(code).forward
    return lambda *given: run(code, *weights, *given)
