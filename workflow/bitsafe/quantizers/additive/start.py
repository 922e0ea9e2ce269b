"""Where the codes start from: residual k-means (Egiazarian et al. 2024, §3.2; Chen et al. 2010)."""

import torch
from torch import Tensor

POINTS_A_CENTROID = 256  # Lloyd's algorithm sees at most so many; all are assigned at the end
CHUNK = 2**24  # distances held at once


def residual_kmeans(
    points: Tensor, codebooks: int, size: int, iterations: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Codes [n, K] and codebooks [K, size, g] of points [n, g]: each codebook clusters what those before it left."""
    rest, codes, books = points.clone(), [], []
    for _ in range(codebooks):
        book = kmeans(rest, size, iterations, generator)
        codes.append(nearest(rest, book))
        books.append(book)
        rest -= book[codes[-1]]
    return torch.stack(codes, -1), torch.stack(books)


def kmeans(points: Tensor, size: int, iterations: int, generator: torch.Generator) -> Tensor:
    """Lloyd's algorithm from `size` points drawn at random: centroids [size, g]; an empty cluster keeps its own.

    Fewer points than centroids leave the surplus centroids at zero.
    """
    order = torch.randperm(len(points), generator=generator).to(points.device)
    seen = points[order[: size * POINTS_A_CENTROID]]
    centroids = torch.zeros(size, points.shape[1], device=points.device, dtype=points.dtype)
    centroids[: min(size, len(seen))] = seen[:size]
    for _ in range(iterations):
        codes = nearest(seen, centroids)
        counts = torch.bincount(codes, minlength=size).unsqueeze(1)
        sums = torch.zeros_like(centroids).index_add_(0, codes, seen)
        centroids = torch.where(counts > 0, sums / counts.clamp(min=1), centroids)
    return centroids


def nearest(points: Tensor, centroids: Tensor) -> Tensor:
    """The nearest centroid of each point: int64 [n]."""
    half_norms, rows = centroids.square().sum(1) / 2, max(1, CHUNK // len(centroids))
    return torch.cat([(half_norms - part @ centroids.T).argmin(1) for part in points.split(rows)])
