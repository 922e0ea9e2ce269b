"""Walking a model block by block: the same activations as the whole model's, and those of changed weights after it."""

import pytest
import tiny_model
import torch
import transformers

from bitsafe.errors import CellError, UserError
from bitsafe.quantizers.shared.blocks import walk

SIZES = {"vocab_size": 261, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}
ARCHITECTURES = {
    "Llama": transformers.LlamaConfig(**SIZES),
    "Mistral": transformers.MistralConfig(**SIZES, head_dim=16, sliding_window=None),
    "Gemma": transformers.GemmaConfig(**SIZES, head_dim=16),
    "Qwen2": transformers.Qwen2Config(**SIZES),
}


def batches() -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randint(5, 261, (3, 7)), torch.randint(5, 261, (2, 12))]


def build(name: str):
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(ARCHITECTURES[name]).eval()


def wanted(model) -> set[str]:
    return {path for path, m in model.named_modules() if isinstance(m, torch.nn.Linear) and ".layers." in path}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_blocks_give_what_the_whole_model_gives(name):
    model = build(name)
    last = None
    for block in walk(model, batches(), wanted(model), "test"):
        assert len(block.linears) == 7
        last = block.outputs()
    for ids, hidden in zip(batches(), last):
        whole = model(input_ids=ids, use_cache=False).logits
        ours = model.lm_head(model.model.norm(hidden))
        assert torch.allclose(ours, whole, atol=1e-5)


def test_a_gram_matrix_is_the_mean_outer_product_of_the_inputs():
    model = tiny_model.model()
    seen = []
    layer = model.model.layers[0].mlp.down_proj
    layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().flatten(0, 1)))
    for ids in batches():
        model(input_ids=ids, use_cache=False)
    rows = torch.cat(seen)
    expected = sum(torch.outer(row, row) for row in rows) / len(rows)
    block = next(walk(model, batches(), wanted(model), "test"))
    assert torch.allclose(block.grams()["model.layers.0.mlp.down_proj"], expected, rtol=1e-4, atol=1e-6)


def test_later_blocks_are_entered_with_the_outputs_of_changed_ones():
    model = tiny_model.model()
    for number, block in enumerate(walk(model, batches(), wanted(model), "test")):
        if number == 0:
            before = block.outputs()
            for linear in block.linears.values():
                linear.weight.data.mul_(0.5)
            after = block.outputs()
        else:
            assert all(torch.equal(hidden, own) for (hidden, _), own in zip(block.inputs, after))
            assert not torch.allclose(before[0], after[0])


def test_only_the_wanted_layers_are_given():
    model = tiny_model.model()
    block = next(walk(model, batches(), {"model.layers.0.mlp.up_proj"}, "test"))
    assert list(block.linears) == ["model.layers.0.mlp.up_proj"]


def test_activations_that_are_not_finite_are_told():
    model = tiny_model.model()
    model.model.layers[0].mlp.up_proj.weight.data.fill_(torch.inf)
    blocks = walk(model, batches(), wanted(model), "test")
    with pytest.raises(CellError, match="not finite"):
        next(blocks).grams()


def test_a_model_without_a_list_of_blocks_is_refused():
    with pytest.raises(UserError, match="no list of decoder blocks"):
        next(walk(torch.nn.Linear(2, 2), [], set(), "test"))
