"""Q-resafe's variant for quantizers without fine-tuning (Chen et al. 2025, arXiv 2506.20251, §5.1): nothing is trained.

The weights that matter most to the refusals of the full-precision model keep their 16 bits; every other weight keeps
the code it has. What the paper leaves open is answered so: the scores are those of the full-precision model on its own
refusals of the patch prompts; τ is taken within each layer (`mask_scope`); scales stay those of all weights together,
kept ones included; what is kept of a weight that AWQ rescaled is the rescaled one.
"""

import logging
from typing import Any

from bitsafe.artefacts.checkpoint import storage_dtype
from bitsafe.artefacts.formats.own import rewrite
from bitsafe.artefacts.kinds.mixed import MixedLinear, keep
from bitsafe.patches.base import PatchJob
from bitsafe.patches.keeping.importance import CRITERIA
from bitsafe.patches.keeping.rounded import read_rounded
from bitsafe.patches.keeping.settings import KeepSettings
from bitsafe.patches.shared.cost import Watch
from bitsafe.patches.shared.maths import critical_mask

VERSION = 1

log = logging.getLogger(__name__)


def patch(job: PatchJob) -> dict[str, Any]:
    """Write the cell again with a share τ of its weights in 16 bits; facts for the manifest."""
    watch = Watch()
    settings, cell = KeepSettings.read(job.params), read_rounded(job)
    scores, facts = CRITERIA[settings.criterion](job, settings, cell)
    kept = critical_mask(scores, settings.tau, settings.mask_scope)
    dtype = storage_dtype(job.teacher)
    layers = [keep(cell.layers[name], kept[name], weight, dtype) for name, weight in cell.weights()]
    rewrite(job.artefact, job.out, "mixed", layers)
    total = sum(layer.numel for layer in layers)
    facts |= {"tau": settings.tau, "kept": sum(int(mask.sum()) for mask in kept.values()) / total}
    facts = {"flops": 0.0} | facts | {"bits": spent(layers)} | watch.facts()
    log.info("%.2f %% of the weights stay in 16 bits: %s", 100 * facts["kept"], facts["bits"])
    return facts


def spent(layers: list[MixedLinear]) -> dict[str, float]:
    """Bits per weight of each part; `scales` holds all that the base has beside its codes."""
    parts = {
        "codes": sum(layer.code_bits for layer in layers),
        "scales": sum(layer.base.extra_bits for layer in layers),
        "kept": sum(layer.value_bits for layer in layers),
        "index": sum(layer.index_bits for layer in layers),
    }
    return {name: bits / sum(layer.numel for layer in layers) for name, bits in parts.items()}
