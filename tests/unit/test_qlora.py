"""QLoRA at every width and in every form, and the NormalFloat tables under it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitsafe.artefacts.activations import read_activations
from bitsafe.artefacts.artefact import Format, format_of, read_layers, with_codes
from bitsafe.artefacts.check import prove
from bitsafe.artefacts.checkpoint import decoder_linears, read_tensors
from bitsafe.artefacts.load import load_dense
from bitsafe.errors import CellError, UserError
from bitsafe.files import sha256_folder
from bitsafe.matrix.tables import Tables
from bitsafe.quantizers import llm_int8, qlora
from bitsafe.quantizers.base import QuantizeJob
from bitsafe.quantizers.shared.normal_float import normal_float, save_normal_float, table_grid

PARAMS = {"rank": 4, "alpha": 8, "steps": 6, "lr": 1e-2, "batch_size": 8}
IDS = torch.arange(5, 60)[None]


def run(source, out, conversations, bits=4, seed=3, **changes):
    out.mkdir(parents=True, exist_ok=True)
    return qlora.quantize(QuantizeJob(source, out, bits, PARAMS | changes, conversations, seed))


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_llama, conversations):
    """{bits or form: (folder, facts)}: the unmerged form at each width, the others at 4 bits."""
    root = tmp_path_factory.mktemp("qlora")
    found = {bits: (root / str(bits), run(tiny_llama, root / str(bits), conversations, bits)) for bits in qlora.BITS}
    forms = {form: (root / form, run(tiny_llama, root / form, conversations, form=form)) for form in qlora.FORMS[1:]}
    return found | forms


@torch.no_grad()
def logits(folder):
    return load_dense(folder, "float32")[0](IDS, use_cache=False).logits[0]


# --- tables ---


def test_the_construction_gives_the_published_16_levels():
    import bitsandbytes.functional as bnb

    # the library's constants come from quantiles in float32
    assert torch.allclose(normal_float(4), bnb.get_4bit_type("nf4", device="cpu"), rtol=0, atol=1e-6)


def test_nf2_by_hand():
    # outermost probability 1 − (1/3 + 1/4)/4 = 0.854167; Φ⁻¹ of it 1.0545, of 0.677083 (halfway to 1/2) 0.4596
    assert normal_float(2).tolist() == pytest.approx([-1, 0, 0.4596 / 1.0545, 1], abs=1e-4)


@pytest.mark.parametrize("bits", [4, 3, 2])
def test_a_table_has_zero_both_ends_and_one_level_more_above_zero(bits):
    levels = normal_float(bits)
    assert len(levels) == len(set(levels.tolist())) == 2**bits
    assert (levels.min(), levels.max()) == (-1, 1)
    assert int((levels == 0).sum()) == 1
    assert int((levels > 0).sum()) == int((levels < 0).sum()) + 1 == 2 ** (bits - 1)
    assert torch.equal(levels, levels.sort().values)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**20), bits=st.sampled_from([4, 3, 2]), size=st.floats(1e-3, 1e3))
def test_the_nearest_code_is_a_naive_argmins(seed, bits, size):
    weight = size * torch.randn(6, 50, generator=torch.Generator().manual_seed(seed))  # 300: the last block is short
    weight[0, :64] = 0
    grid = table_grid(weight, normal_float(bits))
    flat = weight.flatten().double()
    naive = torch.empty(flat.shape, dtype=torch.long)
    for start in range(0, len(flat), 64):
        block = flat[start : start + 64]
        distances = (normal_float(bits).double()[:, None] * block.abs().max() - block).abs()
        naive[start : start + 64] = distances.argmin(0)
    nonzero = flat != 0
    assert torch.equal(grid.nearest(weight).flatten()[nonzero].long(), naive[nonzero])
    assert (grid.dequantize(grid.nearest(weight)).flatten()[~nonzero] == 0).all()
    assert grid.absmax.tolist() == [float(block.abs().max()) for block in weight.flatten().split(64)]


def test_a_table_artefact_reads_back_and_takes_new_codes(tiny_llama, tmp_path, conversations):
    (tmp_path / "base").mkdir()
    save_normal_float(tiny_llama, tmp_path / "base", 3)
    assert format_of(tmp_path / "base") is Format.BITSAFE
    source, layers = read_tensors(tiny_llama), read_layers(tmp_path / "base")
    for name, layer in layers.items():
        grid = table_grid(source[f"{name}.weight"], normal_float(3))
        assert torch.equal(layer.codes, grid.nearest(source[f"{name}.weight"]))
        assert torch.equal(layer.dense(), grid.dequantize(layer.codes))
    facts = prove(tmp_path / "base", tiny_llama, {"logit_error": 0.8}, conversations, bits=3)
    weights = sum(a * b for a, b in decoder_linears(tiny_llama).values())
    assert facts["effective_bits"] == pytest.approx(3 + 32 / 64 + 14 * 8 * 32 / weights)
    name = sorted(layers)[2]
    with_codes(tmp_path / "base", tmp_path / "new", {name: 7 - layers[name].codes})
    assert torch.equal(read_layers(tmp_path / "new")[name].codes, 7 - layers[name].codes)


# --- every width ---


@pytest.mark.parametrize("bits", [8, 3, 2])
def test_the_artefact_passes_its_proof_and_repeats_itself(made, bits, tiny_llama, conversations, tmp_path):
    folder, facts = made[bits]
    proof = prove(folder, tiny_llama, Tables().get("methods", "qlora", "test").limits[bits], conversations, bits=bits)
    assert proof["quantized_layers"] == 14
    assert proof["effective_bits"] > bits
    assert facts["final_loss"] < facts["first_loss"]
    assert run(tiny_llama, tmp_path / "again", conversations, bits) == facts
    assert sha256_folder(tmp_path / "again") == sha256_folder(folder)


@pytest.mark.parametrize("bits", [8, 3, 2])
def test_the_base_is_left_as_it_was_and_the_adapter_lies_beside(made, bits, tiny_llama, tmp_path):
    if bits == 8:
        llm_int8.quantize(QuantizeJob(tiny_llama, tmp_path, 8))
    else:
        save_normal_float(tiny_llama, tmp_path, bits)
    base, trained = read_tensors(tmp_path), read_tensors(made[bits][0])
    assert base.keys() == trained.keys()
    assert all(torch.equal(base[name], trained[name]) for name in base)
    layers = read_layers(made[bits][0]).values()
    assert all(layer.adapter is not None and layer.adapter.B.abs().max() > 0 for layer in layers)


def test_only_8_bits_round_activations(made, tiny_llama, tmp_path):
    llm_int8.quantize(QuantizeJob(tiny_llama, tmp_path, 8))
    assert read_activations(made[8][0]) == read_activations(tmp_path)
    assert all(read_activations(made[key][0]) is None for key in (4, 3, 2, *qlora.FORMS[1:]))


@pytest.mark.parametrize("bits", [3, 2])
def test_training_on_the_dense_base_saves_what_it_trained(tiny_llama, tmp_path, conversations, bits):
    """The first loss of training at a rate of 0 is that of the saved artefact: adapter and base are both in it."""
    from bitsafe.data.chat import collate, encode_all
    from bitsafe.quantizers.shared.training import token_losses

    facts = run(tiny_llama, tmp_path, conversations, bits, steps=1, lr=0.0, batch_size=24)
    model, tokenizer = load_dense(tmp_path, "float32")
    with torch.no_grad():
        total, count = token_losses(model, collate(encode_all(tokenizer, conversations), pad=0))
    assert facts["final_loss"] == pytest.approx(total.item() / count, rel=1e-5)


def test_an_adapter_on_llm_int8_sees_rounded_inputs_here_and_whole_ones_in_the_library(made, tiny_llama):
    """Where the two part, a layer at a time: scaling · B A (x − x̂), a hundredth of what the adapter adds."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from bitsafe.artefacts.activations import Rule, fake_quantize
    from bitsafe.artefacts.quiet import quiet

    folder = made[8][0]
    with quiet():
        base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        theirs = PeftModel.from_pretrained(base, folder / "adapter").eval().base_model.model
    generator = torch.Generator().manual_seed(0)
    for name, layer in read_layers(folder).items():
        x = torch.randn(16, layer.shape[1], generator=generator).half().float()
        rounded = fake_quantize(x, Rule(8, symmetric=True, threshold=6.0))
        with torch.no_grad(), quiet():
            native = torch.cat([theirs.get_submodule(name)(row[None]) for row in x])
        whole = rounded @ layer.weight().T + x @ layer.adapter.delta().T
        assert ((native - whole).norm(dim=1) / whole.norm(dim=1)).median() < 1e-4
        parted = (native - rounded @ layer.dense().T).norm() / (x @ layer.adapter.delta().T).norm()
        assert parted < 0.02


# --- every form ---


def test_merging_into_a_dense_checkpoint_keeps_the_adapter_and_requantizing_loses_part_of_it(made, tmp_path):
    """Share of the adapter's change of the logits that each form keeps, and how far off the rest of it points."""
    from shutil import copytree, ignore_patterns

    from bitsafe.artefacts.artefact import ADAPTER

    base = logits(copytree(made[4][0], tmp_path / "base", ignore=ignore_patterns(ADAPTER)))
    moved = logits(made[4][0]) - base
    error = {form: float((logits(made[form][0]) - base - moved).norm() / moved.norm()) for form in qlora.FORMS[1:]}
    assert error["merged"] < 0.01  # the merged weights are rounded to fp16
    assert error["requantized"] > 10 * error["merged"]


def test_a_merged_artefact_is_an_ordinary_checkpoint_of_16_bits(made, tiny_llama, conversations):
    folder, facts = made["merged"]
    assert facts["artefact_bits"] == 16
    assert format_of(folder) is Format.DENSE
    assert read_tensors(folder).keys() == read_tensors(tiny_llama).keys()
    proof = prove(folder, tiny_llama, {"effective_bits": 16}, conversations, bits=16)
    assert (proof["effective_bits"], proof["quantized_layers"]) == (16, 0)
    with pytest.raises(CellError, match="14 of 14 layers are not quantized"):  # it never passes for a 4-bit one
        prove(folder, tiny_llama, {}, conversations, bits=4)
    dense = {f"{name}.weight": layer.dense().half() for name, layer in read_layers(made[4][0]).items()}
    stored = read_tensors(folder)
    assert all(torch.equal(stored[name], weight) for name, weight in dense.items())


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_a_requantized_artefact_is_the_merged_one_quantized_like_the_base(bits, tiny_llama, tmp_path, conversations):
    for form in ("merged", "requantized"):
        run(tiny_llama, tmp_path / form, conversations, bits, form=form)
    assert sorted(p.name for p in tmp_path.glob("*/tmp*")) == []  # nothing of the scratch folder stays
    source = tmp_path / "merged"
    by_hand = tmp_path / "by_hand"
    by_hand.mkdir()
    qlora._save_base(source, by_hand, QuantizeJob(source, by_hand, bits))
    assert sha256_folder(by_hand) == sha256_folder(tmp_path / "requantized")
    layers = read_layers(tmp_path / "requantized")
    assert all(layer.adapter is None and layer.bits == bits for layer in layers.values())
    assert (read_activations(tmp_path / "requantized") is not None) == (bits == 8)
    prove(tmp_path / "requantized", tiny_llama, {}, conversations, bits=bits)


def test_variants_of_the_table_differ_by_their_form_alone():
    tables = Tables()
    base = tables.get("methods", "qlora", "test")
    for form in qlora.FORMS[1:]:
        row = tables.get("methods", f"qlora_{form}", "test")
        assert row.params == base.params | {"form": form}
        assert (row.module, row.bits, row.risk_use) == (base.module, base.bits, base.risk_use)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"form": "merge"}, r"qlora\.params\.form: 'merge'; did you mean 'merged'\?"),
        ({"rank": 0}, r"params\.rank: 0: a whole number of at least 1"),
        ({"alpha": -1}, r"params\.alpha: -1: a number above 0"),
    ],
)
def test_bad_parameters_are_refused_before_any_work(tiny_llama, tmp_path, conversations, changes, match):
    with pytest.raises(UserError, match=match):
        run(tiny_llama, tmp_path / "out", conversations, **changes)
    assert not list((tmp_path / "out").iterdir())


def test_a_merged_artefact_is_not_patched(made):
    from bitsafe.patches.base import PatchJob
    from bitsafe.patches.shared.repair import patchable_layers

    job = PatchJob(made["merged"][0], made["merged"][0], made["merged"][0], [], {}, 0, "float32", lambda: [])
    with pytest.raises(UserError, match="in full precision: leave it out"):
        patchable_layers(job)
