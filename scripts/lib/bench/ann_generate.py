"""Generated vectors for scripts/bench ann: what embeddings look like to an index, at any size and without a download.

A latent point of 16 numbers is drawn from a mixture of Gaussians whose clusters differ in size as a Zipf law has it (a
few with ten thousands of rows, most with hundreds) and in shape (each its own axes and spread). A fixed random net of
two layers with tanh, smooth and the same for all rows, bends that 16-dimensional sheet into 256 (or 1,280) dimensions;
isotropic noise makes it a little thick; the mean is taken off and each row scaled to length 1. 2 % of the rows are
near-duplicates of another row (cosine about .999), as catalogues have them. Queries are rows of the same draw that were
held out.

Each row has a class (its cluster) and two attributes that know nothing of the vector, uniform over 0..9,999: a filter
`a < 100` keeps 1 %.

Everything follows from the seed: rows are made in blocks, each with a random stream of its own, so that a smaller set is
not the head of a larger one but a draw from the same mixture and the same map. Bits may differ in the last place
between CPUs, since the products go through BLAS.
"""
import dataclasses

import numpy as np

LATENT = 16
HIDDEN = 192
BLOCK = 50_000
DUPLICATES = 0.02
DUPLICATE_SPREAD = 0.045  # length of what a near-duplicate is off by: cosine about .999
ATTRIBUTE_RANGE = 10_000


@dataclasses.dataclass(frozen=True)
class Recipe:
    dim: int = 256
    clusters: int = 1000
    zipf: float = 0.9  # weight of the r-th cluster: 1 / (r + 5) ** zipf
    spread: float = 0.65  # of a cluster, where the centres' is 1; each cluster's own varies about it
    noise: float = 0.18  # length of the isotropic noise, where a row's is 1
    seed: int = 20261127


class Mixture:
    """The clusters and the map: fixed by the recipe. `family` > 0 gives other clusters under the same map."""

    def __init__(self, recipe, family=0):
        self.recipe = recipe
        self.family = family
        rng = self._stream(1, family)
        count = recipe.clusters
        weights = 1.0 / np.arange(6, count + 6) ** recipe.zipf
        self.weights = weights / weights.sum()
        self.centres = rng.standard_normal((count, LATENT), np.float32)
        turns = np.linalg.qr(rng.standard_normal((count, LATENT, LATENT), np.float32))[0]
        own = recipe.spread * np.exp(0.25 * rng.standard_normal((count, 1, 1), np.float32))
        axes = np.exp(0.25 * rng.standard_normal((count, LATENT, 1), np.float32))
        self.shapes = (own * axes * turns).astype(np.float32)
        rng = self._stream(2)
        self.first = rng.standard_normal((LATENT, HIDDEN), np.float32) * np.float32(1.0 / np.sqrt(LATENT))
        self.first_bias = rng.standard_normal(HIDDEN, np.float32) * np.float32(0.5)
        self.second = rng.standard_normal((HIDDEN, recipe.dim), np.float32) * np.float32(1.5 / np.sqrt(HIDDEN))
        self.second_bias = rng.standard_normal(recipe.dim, np.float32) * np.float32(0.3)
        # The mean of the old clusters whichever the family: a catalogue that drifts is not centred anew.
        origin = self if family == 0 else Mixture(recipe)
        self.mean = self._bend(self._latent(self._stream(3), 20_000, origin)[0]).mean(axis=0) if family == 0 else origin.mean

    def _stream(self, *what):
        return np.random.Generator(np.random.PCG64([self.recipe.seed, self.recipe.dim, *what]))

    def _latent(self, rng, n, clusters):
        cluster = rng.choice(len(clusters.weights), n, p=clusters.weights).astype(np.int32)
        noise = rng.standard_normal((n, LATENT), np.float32)
        order = np.argsort(cluster, kind="stable")
        latent = clusters.centres[cluster]
        starts = np.searchsorted(cluster[order], np.arange(len(clusters.weights) + 1))
        for which in range(len(clusters.weights)):
            rows = order[starts[which]:starts[which + 1]]
            latent[rows] += noise[rows] @ clusters.shapes[which]
        return latent, cluster

    def _bend(self, latent):
        return np.tanh(np.tanh(latent @ self.first + self.first_bias) @ self.second + self.second_bias)

    def block(self, number, n):
        """n rows of unit length, and their clusters."""
        rng = self._stream(4, self.family, number)
        latent, cluster = self._latent(rng, n, self)
        rows = self._bend(latent) - self.mean
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        rows += rng.standard_normal(rows.shape, np.float32) * np.float32(self.recipe.noise / np.sqrt(self.recipe.dim))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows, cluster

    def draw(self, n):
        """[n][dim] rows with near-duplicates among them, and each one's cluster, in random order."""
        rows, cluster = np.empty((n, self.recipe.dim), np.float32), np.empty(n, np.int32)
        for number, start in enumerate(range(0, n, BLOCK)):
            stop = min(start + BLOCK, n)
            rows[start:stop], cluster[start:stop] = self.block(number, stop - start)
        rng = self._stream(5, self.family, n)
        pairs = rng.permutation(n)[:2 * int(n * DUPLICATES)].reshape(2, -1)  # no row is both copy and original
        for copy, original in zip(np.array_split(pairs[0], 20), np.array_split(pairs[1], 20)):
            off = rng.standard_normal((len(copy), self.recipe.dim), np.float32)
            near = rows[original] + off * np.float32(DUPLICATE_SPREAD / np.sqrt(self.recipe.dim))
            rows[copy] = near / np.linalg.norm(near, axis=1, keepdims=True)
            cluster[copy] = cluster[original]
        return rows, cluster

    def attributes(self, n):
        """[n][2], uniform and independent of the vectors."""
        return self._stream(6, self.family, n).integers(0, ATTRIBUTE_RANGE, (n, 2), np.int32)


def intrinsic_dimension(distances):
    """Maximum-likelihood estimate (Levina and Bickel 2004, averaged as MacKay and Ghahramani say: over the inverses).
    distances: [points][k], ascending, of each point to its k nearest, none of them 0."""
    logs = np.log(distances[:, -1:] / distances[:, :-1])
    return 1.0 / np.mean(logs.sum(axis=1) / (distances.shape[1] - 2))
