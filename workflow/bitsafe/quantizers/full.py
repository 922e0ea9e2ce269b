"""Full precision: the source itself, or (with a risk) the source fine-tuned on the risk set without quantization.

The second is the control of every fine-tuned method: it says what the data did without the bits.
"""

from bitsafe.artefacts.artefact import write_pointer
from bitsafe.artefacts.checkpoint import copy_side_files, write_config, write_tensors
from bitsafe.artefacts.load import load_model, load_tokenizer
from bitsafe.data.chat import encode_all
from bitsafe.generate.device import place
from bitsafe.quantizers.base import (
    TRAINED,
    QuantizeJob,
    require_bits,
    require_conversations,
    require_params,
    seed_everything,
    source_tensors,
    tensors_now,
)
from bitsafe.quantizers.shared.training import PARAMS, Settings, body_parameters, train

VERSION = 1
BITS = (16,)
BYTES_A_WEIGHT = TRAINED


def quantize(job: QuantizeJob) -> dict:
    """Write a pointer to the source, or a fine-tuned checkpoint. params at a risk: steps, lr, batch_size."""
    require_bits(job, BITS)
    require_params(job, PARAMS)
    source = source_tensors(job)
    if not job.conversations:
        write_pointer(job.out, job.source)
        return {}
    settings = Settings.of(job.params)
    require_conversations(job)
    seed_everything(job.seed)
    model, tokenizer = place(load_model(job.source, "float32"), TRAINED / 4), load_tokenizer(job.source)
    facts = train(model, body_parameters(model), encode_all(tokenizer, job.conversations), settings, job.seed)
    write_tensors(job.out, tensors_now(model, source))
    write_config(job.source, job.out)
    copy_side_files(job.source, job.out)
    return facts
