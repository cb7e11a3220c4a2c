"""Exact nearest rows for scripts/bench ann, and recall as it counts there."""
import numpy as np

TOLERANCE = 1e-6
QUERIES_AT_ONCE = 1000
ROWS_AT_ONCE = 100_000


def exact(base, queries, k, rows=None):
    """([n][k] ids, [n][k] scores), best first; ids -1 where there are fewer than k rows. rows: only those of the base."""
    rows = np.arange(len(base), dtype=np.int32) if rows is None else np.asarray(rows, np.int32)
    ids, scores = np.full((len(queries), k), -1, np.int32), np.full((len(queries), k), -np.inf, np.float32)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[start:start + ROWS_AT_ONCE]
        block = np.ascontiguousarray(base[some[0]:some[-1] + 1] if some[-1] - some[0] + 1 == len(some) else base[some])
        for first in range(0, len(queries), QUERIES_AT_ONCE):
            part = slice(first, min(first + QUERIES_AT_ONCE, len(queries)))
            _merge(queries[part] @ block.T, some, ids[part], scores[part])
    return ids, scores


def _merge(products, rows, ids, scores):
    """What of a block's products is among the best so far."""
    k = ids.shape[1]
    for one in range(len(products)):
        at = np.flatnonzero(products[one] > scores[one, -1])
        if len(at) > 4 * k:  # the first block, where everything is better than nothing
            at = at[np.argpartition(products[one, at], -k)[-k:]]
        if not len(at):
            continue
        all_scores = np.concatenate([scores[one], products[one, at]])
        all_ids = np.concatenate([ids[one], rows[at]])
        order = np.argsort(-all_scores, kind="stable")[:k]
        ids[one], scores[one] = all_ids[order], all_scores[order]


def recall(base, queries, answers, truth_scores, k=10, matches=None):
    """Share of the k nearest that were found. An answer is right when its own true score reaches the k-th true score less
    1e-6, so that it does not matter which of several equals was named. answers: [n][>= k] ids, -1 for none; twice the
    same counts once. matches: [n][k] bool, false for answers that the filter forbids."""
    found, wanted = 0, 0
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        part = slice(start, min(start + QUERIES_AT_ONCE, len(queries)))
        got = np.sort(np.asarray(answers[part])[:, :k].astype(np.int64), axis=1)
        real = got >= 0
        real[:, 1:] &= got[:, 1:] != got[:, :-1]
        if matches is not None:
            real &= matches(got, np.arange(part.start, part.stop))
        own = np.einsum("qd,qkd->qk", queries[part], base[np.where(real, got, 0)])
        have = np.isfinite(truth_scores[part, :k]).sum(axis=1)
        last = np.where(have > 0, truth_scores[np.arange(part.start, part.stop), np.maximum(have, 1) - 1], np.inf)
        found += np.minimum((real & (own >= last[:, None] - TOLERANCE)).sum(axis=1), have).sum()
        wanted += have.sum()
    return float(found / max(wanted, 1))
