"""Grids: codes to weights and back, on tensors small enough to check by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitsafe.artefacts.grids import AffineGrid, TableGrid, affine_grid, straight_through
from bitsafe.artefacts.layers import LowRank, QuantizedLinear


def test_affine_grid_by_hand():
    # group 1: −1 … 2, scale 3/3 = 1, zero at code 1; group 2: 0 … 1.5, scale 0.5, zero at code 0
    weight = torch.tensor([[-1.0, 2.0, 0.4, 1.6, 0.0, 1.5, 0.6, 0.2]])
    grid = affine_grid(weight, bits=2, group_size=4)
    assert grid.scale.tolist() == [[1.0, 0.5]]
    assert grid.zero_point.tolist() == [[1, 0]]
    codes = grid.nearest(weight)
    assert codes.tolist() == [[0, 3, 1, 3, 0, 3, 1, 0]]
    assert grid.dequantize(codes).tolist() == [[-1.0, 2.0, 0.0, 2.0, 0.0, 1.5, 0.5, 0.0]]
    assert grid.side_bits == 2 * 16 + 2 * 2  # two fp16 scales, two 2-bit zero-points


def test_symmetric_grid_by_hand():
    # max 3.5 over 7/2 steps: scale 1, zero at code 4, levels −4 … 3
    weight = torch.tensor([[-3.5, 1.0, 2.6, -0.4]])
    grid = affine_grid(weight, bits=3, group_size=4, symmetric=True)
    assert grid.scale.tolist() == [[1.0]]
    assert grid.dequantize(grid.nearest(weight)).tolist() == [[-4.0, 1.0, 3.0, 0.0]]
    assert grid.side_bits == 16


def test_group_of_a_whole_row():
    grid = affine_grid(torch.randn(3, 6), bits=4, group_size=-1)
    assert grid.group_size == 6
    assert grid.shape == (3, 6)


def test_table_grid_by_hand():
    grid = TableGrid(torch.tensor([-1.0, 0.0, 0.5, 1.0]), torch.tensor([2.0, 4.0]), 4, (2, 4))
    weight = torch.tensor([[-2.0, 0.4, 0.6, 1.4], [4.0, -4.0, 1.1, 0.9]])
    codes = grid.nearest(weight)
    assert codes.tolist() == [[0, 1, 2, 2], [3, 0, 2, 1]]
    assert grid.dequantize(codes).tolist() == [[-2.0, 0.0, 1.0, 1.0], [4.0, -4.0, 2.0, 0.0]]
    assert grid.bits == 2
    assert grid.side_bits == 2 * 32 + 4 * 32


def test_table_grid_takes_any_order_of_levels_and_a_short_last_block():
    grid = TableGrid(torch.tensor([1.0, -1.0, 0.0, 0.5]), torch.tensor([1.0, 3.0]), 4, (1, 6))
    weight = torch.tensor([[1.0, -1.0, 0.0, 0.5, 3.0, -3.0]])
    assert grid.nearest(weight).tolist() == [[0, 1, 2, 3, 0, 1]]
    assert torch.equal(grid.dequantize(grid.nearest(weight)), weight)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**20),
    bits=st.sampled_from([2, 3, 4, 8]),
    symmetric=st.booleans(),
    size=st.floats(1e-3, 1e3),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32]),
)
def test_affine_rounding_is_nearest_and_idempotent(seed, bits, symmetric, size, dtype):
    generator = torch.Generator().manual_seed(seed)
    weight = size * torch.randn(4, 32, generator=generator)
    grid = affine_grid(weight, bits, 16, symmetric, dtype)
    codes = grid.nearest(weight)
    assert int(codes.max()) < 2**bits
    rounded = grid.dequantize(codes)
    assert torch.equal(grid.nearest(rounded), codes)
    levels = torch.stack([grid.dequantize(torch.full_like(codes, code)) for code in range(2**bits)])
    best = (levels - weight).abs().amin(0)
    assert torch.allclose((rounded - weight).abs(), best, atol=1e-6 * size)


@pytest.mark.parametrize("fill", [0.0, 1e-12])
def test_a_group_of_zeros_stays_zero(fill):
    weight = torch.full((2, 8), fill)
    grid = affine_grid(weight, 4, 8)
    assert torch.isfinite(grid.scale).all()
    assert grid.dequantize(grid.nearest(weight)).abs().max() == 0


def test_straight_through_rounds_forward_and_is_the_identity_backward():
    weight = torch.randn(4, 8, requires_grad=True)
    grid = affine_grid(weight, 2, 8)
    rounded = straight_through(weight, grid.rounded)
    assert torch.equal(rounded, grid.dequantize(grid.nearest(weight)))
    upstream = torch.randn(4, 8)
    rounded.backward(upstream)
    assert torch.equal(weight.grad, upstream)


def test_an_adapter_is_added_in_float32():
    grid = AffineGrid(2, 2, torch.ones(1, 1), torch.zeros(1, 1, dtype=torch.uint8))
    adapter = LowRank(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]]), scaling=0.5)
    layer = QuantizedLinear("x", torch.tensor([[1, 2]], dtype=torch.uint8), grid, adapter=adapter)
    assert layer.dense().tolist() == [[2.5, 5.0]]  # [1, 2] + 0.5 · 3 · [1, 2]
    assert layer.side_bits == (32 + 2) + 3 * 32
