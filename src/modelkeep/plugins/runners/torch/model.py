"""A network that is served: arrays in, arrays out, in as many rows at once as it takes."""

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from modelkeep.contracts.pieces import in_pieces
from modelkeep.contracts.runner import LoadOptions, ModelFacts
from modelkeep.contracts.signature import Signature
from modelkeep.plugins.runners.torch.answers import as_array, named
from modelkeep.plugins.runners.torch.network import Network
from modelkeep.plugins.runners.torch.trials import find_out

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Inputs = Mapping[str, NDArray[np.generic]]
    Outputs = dict[str, NDArray[np.generic]]


class TorchModel:
    """One network, in eval mode, without gradients."""

    def __init__(self, network: Network, options: LoadOptions) -> None:
        import torch

        known = options.signature
        found = find_out(network, options.sample, known.inputs if known else ())
        fixed = found.rows.most if found.rows.most == found.rows.least else 0
        details = {**network.details, "fixed_batch": str(fixed or "")}
        self._network = network
        self._wanted = found.wanted
        self._rows = found.rows
        self.facts = ModelFacts(
            signature=known or Signature(found.inputs, found.outputs),
            framework="torch",
            framework_version=str(torch.__version__),
            kind=network.kind,
            details={name: text for name, text in details.items() if text},
            warnings=found.warnings,
            batch=fixed,
        )

    def run(self, inputs: "Inputs") -> "Outputs":
        """Answer one micro-batch; a network of few rows runs as often as needed."""
        return in_pieces(inputs, self._rows.least, self._rows.most, self._once)

    def _once(self, inputs: "Inputs") -> "Outputs":
        import numpy as np
        import torch

        # copies: a network may write into what it is given, and these arrays may lie in memory that cannot be written
        tensors = {name: torch.from_numpy(np.array(array)).to(self._wanted[name]) for name, array in inputs.items()}
        with torch.inference_mode():
            return {name: as_array(one) for name, one in named(self._network.call(tensors)).items()}


def settle(threads: int) -> None:
    """Have torch compute with so many threads in this process, and the same every time."""
    import torch

    torch.set_num_threads(threads)
    with contextlib.suppress(RuntimeError):  # it can be said once in a process: a runner loads once
        torch.set_num_interop_threads(1)
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False
