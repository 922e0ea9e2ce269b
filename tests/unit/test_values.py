"""Parameters of the wrong kind are told before any work starts, with what is wanted."""

import pytest

from bitsafe.errors import UserError
from bitsafe.matrix.tables import Tables
from bitsafe.quantizers import awq, gptq, quik, rtn, ste
from bitsafe.quantizers.base import QuantizeJob, free_memory, require_memory
from bitsafe.quantizers.values import VALUES, fault_of

TRAINING = {"steps": 2, "lr": 1e-3, "batch_size": 4}


@pytest.mark.parametrize(
    ("module", "params", "said"),
    [
        (rtn, {"group_size": 0}, "group_size: 0: a whole number above 0, or -1 for a whole row"),
        (rtn, {"group_size": -32}, "group_size: -32: a whole number"),
        (rtn, {"group_size": 32.5}, "group_size: 32.5: a whole number"),
        (rtn, {"group_size": None}, "group_size: None: a whole number"),
        (rtn, {"symmetric": "no"}, "symmetric: 'no': true or false"),
        (gptq, {"dampening": -5}, "dampening: -5: a number above 0"),
        (gptq, {"samples": "many"}, "samples: 'many': a whole number of at least 1"),
        (awq, {"grid": 1}, "grid: 1: a whole number of at least 2"),
        (ste, TRAINING | {"steps": 0}, "steps: 0: at least 1"),
        (ste, TRAINING | {"lr": "fast"}, "lr: 'fast': a number of at least 0"),
        (ste, TRAINING | {"lr": float("nan")}, "lr: nan: a number"),
        (ste, TRAINING | {"batch_size": 0}, "batch_size: 0: a whole number of at least 1"),
        (quik, {"activations": "false"}, "activations: 'false': true or false"),
        (quik, {"clip_search": 3.5}, "clip_search: 3.5: a whole number"),
    ],
)
def test_a_value_of_no_use_is_named_before_work_starts(module, params, said, tiny_llama, tmp_path, conversations):
    out = tmp_path / "made"
    out.mkdir()
    with pytest.raises(UserError, match=r"workflow/tables/methods.yaml: params\.") as caught:
        module.quantize(QuantizeJob(tiny_llama, out, 4, params, conversations))
    assert said in str(caught.value) and not list(out.iterdir())


def test_every_row_of_the_table_passes_and_every_number_in_it_is_checked():
    for name, row in Tables().rows("methods").items():
        for key, value in row.params.items():
            assert fault_of(key, value) is None, f"{name}.{key}"
            assert key in VALUES or isinstance(value, str), f"{name}.{key} is checked by nobody"


def test_the_memory_a_control_group_leaves_is_what_counts(tiny_llama, tmp_path, monkeypatch):
    monkeypatch.setattr("bitsafe.quantizers.base.CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    assert free_memory() == 600000
    with pytest.raises(UserError, match=r"needs 0\.0 GB at least"):
        require_memory(QuantizeJob(tiny_llama, tmp_path, 4))
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory() > 1e8
    require_memory(QuantizeJob(tiny_llama, tmp_path, 4), 16)
