"""Additive codebooks learned from samples, the bare idea of AQLM, for the benchmark of distortion."""

import torch
from torch import Tensor

LLOYD, ROUNDS, SWEEPS = 30, 8, 3  # k-means steps a codebook, joint refits of all, and searches of every code


def additive(train: Tensor, test: Tensor, books: int, entries: int) -> Tensor:
    """`test` [n, d] as sums of one entry of each of `books` codebooks that are learned from `train` [m, d].

    Learning stops at a local optimum, so it starts twice; what does better on `train` is kept.
    """
    starts = (residual_codebooks(train, books, entries), product_codebooks(train, books, entries))
    best = min((learned(train, start) for start in starts), key=lambda found: error(train, found))
    return rebuilt(test, best)


def learned(x: Tensor, codebooks: Tensor) -> Tensor:
    """Codebooks and codes bettered in turn from a start, [books, entries, d]."""
    codes = search(x, greedy(x, codebooks), codebooks)
    for _ in range(ROUNDS):
        codebooks = refit(x, codes, codebooks.shape[1])
        codes = search(x, codes, codebooks)
    return codebooks


def rebuilt(x: Tensor, codebooks: Tensor) -> Tensor:
    return total(search(x, greedy(x, codebooks), codebooks), codebooks)


def error(x: Tensor, codebooks: Tensor) -> float:
    return float((x - rebuilt(x, codebooks)).square().mean())


def residual_codebooks(x: Tensor, books: int, entries: int) -> Tensor:
    """Each codebook is the k-means of what those before it leave, [books, entries, d]."""
    found = []
    for _ in range(books):
        found.append(kmeans(x, entries))
        x = x - found[-1][closest(x, found[-1])]
    return torch.stack(found)


def product_codebooks(x: Tensor, books: int, entries: int) -> Tensor:
    """Each codebook is the k-means of its own share of the coordinates, zero in the others, [books, entries, d]."""
    found = torch.zeros(books, entries, x.shape[1])
    for book, share in zip(found, torch.arange(x.shape[1]).tensor_split(books)):
        book[:, share] = kmeans(x[:, share], entries)
    return found


def kmeans(x: Tensor, entries: int) -> Tensor:
    centres = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:entries]]
    for _ in range(LLOYD):
        nearest = closest(x, centres)
        counts = torch.bincount(nearest, minlength=entries)[:, None]
        sums = torch.zeros_like(centres).index_add_(0, nearest, x)
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    return centres


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
