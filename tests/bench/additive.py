"""Additive codebooks learned from samples, the bare idea of AQLM, for the benchmark of distortion."""

import torch
from torch import Tensor

LLOYD, ROUNDS, SWEEPS = 15, 10, 3  # k-means steps a codebook, joint refits of all, and searches of every code


def additive(train: Tensor, test: Tensor, books: int, entries: int) -> Tensor:
    """`test` [n, d] as sums of one entry of each of `books` codebooks that are learned from `train` [m, d]."""
    codebooks = residual_codebooks(train, books, entries)
    codes = greedy(train, codebooks)
    for _ in range(ROUNDS):
        codebooks = refit(train, codes, entries)
        codes = search(train, codes, codebooks)
    return total(search(test, greedy(test, codebooks), codebooks), codebooks)


def residual_codebooks(x: Tensor, books: int, entries: int) -> Tensor:
    """Each codebook is the k-means of what those before it leave, [books, entries, d]."""
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(books):
        centres = x[torch.randperm(len(x), generator=generator)[:entries]]
        for _ in range(LLOYD):
            nearest = closest(x, centres)
            counts = torch.bincount(nearest, minlength=entries)
            sums = torch.zeros_like(centres).index_add_(0, nearest, x)
            centres = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), centres)
        x = x - centres[closest(x, centres)]
        found.append(centres)
    return torch.stack(found)


def greedy(x: Tensor, codebooks: Tensor) -> Tensor:
    """The nearest entry of each codebook to what is left, int64 [n, books]."""
    codes = []
    for book in codebooks:
        codes.append(closest(x, book))
        x = x - book[codes[-1]]
    return torch.stack(codes, dim=1)


def search(x: Tensor, codes: Tensor, codebooks: Tensor) -> Tensor:
    """Each code in turn the best given the others, a few times over."""
    codes = codes.clone()
    left = x - total(codes, codebooks)
    for _ in range(SWEEPS):
        for k, book in enumerate(codebooks):
            left = left + book[codes[:, k]]
            codes[:, k] = closest(left, book)
            left = left - book[codes[:, k]]
    return codes


def refit(x: Tensor, codes: Tensor, entries: int) -> Tensor:
    """The codebooks of least squared error for given codes: one linear system for all of them."""
    books = codes.shape[1]
    chosen = torch.nn.functional.one_hot(codes, entries).flatten(1).float()  # [n, books · entries]
    normal = chosen.T @ chosen + 1e-3 * torch.eye(books * entries)
    return torch.linalg.solve(normal, chosen.T @ x).view(books, entries, -1)


def closest(x: Tensor, centres: Tensor) -> Tensor:
    half = centres.square().sum(1) / 2
    return torch.cat([(part @ centres.T - half).argmax(1) for part in x.split(2**14)])


def total(codes: Tensor, codebooks: Tensor) -> Tensor:
    return sum(book[codes[:, k]] for k, book in enumerate(codebooks))
