"""The indexes that scripts/bench ann compares with: how each is built, opened, asked and changed. ann_worker.py runs one.

A `knob` is what a peer's search understands (an ef, a number of lists, with it how many are compared in full), always a
list. Where two numbers matter both are swept, and only the best points count. Settings are those that the peers' own
documentation and ann-benchmarks use for a million vectors, moved by hand until they did not get better here.
"""
import pathlib
import sys

import numpy as np

K = 10


class Peer:
    """Base: asks one query at a time. A subclass has one() or batch() or both."""

    durable = False
    package = ""
    filters = False
    changes = False
    mixes = True  # with changes: may be asked beside them
    batch_threads = True  # batch() can use several

    def __init__(self, dim, folder, rows):
        self.dim, self.folder, self.rows = dim, pathlib.Path(folder), rows

    def tiny(self, base):
        """The same kind of index over so few rows that a query costs nothing but the call; None: there is none."""
        return None

    def lists(self):
        """Inverted lists for so many rows."""
        return max(64, min(4096, int(4 * self.rows ** 0.5 / 64) * 64))


def _ids(answers, n):
    out = np.full((n, K), -1, np.int32)
    for at, one in enumerate(answers):
        out[at, :len(one)] = one[:K]
    return out


class Scann(Peer):
    label, package = "ScaNN", "scann"
    knobs = [[leaves, reorder] for leaves, reorder in (
        (8, 60), (12, 80), (18, 80), (25, 100), (35, 120), (50, 120), (50, 200), (75, 200), (100, 250), (150, 300), (250, 400))]

    def build(self, base, attributes):
        from scann.scann_ops.py import scann_ops_pybind

        leaves = max(50, int(2 * self.rows ** 0.5))
        searcher = (scann_ops_pybind.builder(base, K, "dot_product").set_n_training_threads(1)
                    .tree(num_leaves=leaves, num_leaves_to_search=leaves // 20, training_sample_size=min(self.rows, 250_000))
                    .score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100).build())
        searcher.serialize(str(self.folder))

    def open(self):
        from scann.scann_ops.py import scann_ops_pybind

        self.searcher = scann_ops_pybind.load_searcher(str(self.folder))
        self.searcher.set_num_threads(1)

    def tiny(self, base):
        from scann.scann_ops.py import scann_ops_pybind

        searcher = scann_ops_pybind.builder(base[:128], K, "dot_product").score_brute_force().build()
        return lambda queries: [searcher.search(query, K) for query in queries]

    def one(self, queries, knob):
        search = self.searcher.search
        return _ids([search(query, K, knob[1], knob[0])[0] for query in queries], len(queries))

    def batch(self, queries, knob, threads=1):
        if threads > 1:
            self.searcher.set_num_threads(threads)
            found = self.searcher.search_batched_parallel(queries, K, knob[1], knob[0])[0]
            self.searcher.set_num_threads(1)
        else:
            found = self.searcher.search_batched(queries, K, knob[1], knob[0])[0]
        return np.asarray(found, np.int64).astype(np.int32)


class Hnswlib(Peer):
    label, package = "hnswlib M16 efC200", "hnswlib"
    knobs = [[ef] for ef in (20, 30, 45, 60, 80, 110, 150, 220, 320)]
    changes = True

    def _index(self, size=None):
        sys.path.insert(0, str(pathlib.Path(sys.prefix) / "hnswlib"))  # not chroma-hnswlib, which has the same name
        import hnswlib

        index = hnswlib.Index(space="ip", dim=self.dim)
        if size:
            index.init_index(max_elements=size, ef_construction=200, M=16, random_seed=1)
        index.set_num_threads(1)
        return index

    def build(self, base, attributes):
        index = self._index(self.rows)
        index.add_items(base, num_threads=1)
        index.save_index(str(self.folder / "hnsw.bin"))

    def open(self, more=0):
        self.index = self._index()
        self.index.load_index(str(self.folder / "hnsw.bin"), max_elements=self.rows + more)
        self.index.set_num_threads(1)

    def tiny(self, base):
        index = self._index(128)
        index.add_items(base[:128], num_threads=1)
        return lambda queries: [index.knn_query(query, k=K, num_threads=1) for query in queries]

    def one(self, queries, knob):
        self.index.set_ef(knob[0])
        return _ids([self.index.knn_query(query, k=K, num_threads=1)[0][0] for query in queries], len(queries))

    def batch(self, queries, knob, threads=1):
        self.index.set_ef(knob[0])
        return self.index.knn_query(queries, k=K, num_threads=threads)[0].astype(np.int32)

    def insert(self, ids, rows, attributes):
        self.index.add_items(rows, ids, num_threads=1)

    def delete(self, ids):
        for each in ids:
            self.index.mark_deleted(int(each))


class _Faiss(Peer):
    package = "faiss-cpu"
    filters = True
    factory = None  # of rows
    trained_on = 256_000

    def _name(self):
        raise NotImplementedError

    def _faiss(self, threads=1):
        import faiss

        faiss.omp_set_num_threads(threads)
        return faiss

    def build(self, base, attributes):
        faiss = self._faiss()
        index = faiss.index_factory(self.dim, self._name(), faiss.METRIC_INNER_PRODUCT)
        if not index.is_trained:
            index.train(base[:min(self.rows, self.trained_on)])
        self._before_add(index)
        for start in range(0, self.rows, 50_000):
            index.add(base[start:start + 50_000])
        faiss.write_index(index, str(self.folder / "index.faiss"))

    def _before_add(self, index):
        pass

    def open(self):
        faiss = self._faiss()
        self.index = faiss.read_index(str(self.folder / "index.faiss"))
        self._opened(faiss)

    def _opened(self, faiss):
        pass

    def tiny(self, base):
        faiss = self._faiss()
        index = faiss.IndexFlatIP(self.dim)
        index.add(np.array(base[:8]))
        return lambda queries: [index.search(queries[at:at + 1], K) for at in range(len(queries))]

    def _parameters(self, knob, selector=None):
        raise NotImplementedError

    def _run(self, queries, knob, singly, selector=None):
        parameters = self._parameters(knob, selector)
        if not singly:
            return self.index.search(queries, K, params=parameters)[1].astype(np.int32)
        return np.concatenate([self.index.search(queries[at:at + 1], K, params=parameters)[1]
                               for at in range(len(queries))]).astype(np.int32)

    def one(self, queries, knob):
        return self._run(queries, knob, True)

    def batch(self, queries, knob, threads=1):
        self._faiss(threads)
        found = self._run(queries, knob, False)
        self._faiss(1)
        return found

    def set_filter(self, masks):
        """masks: {key: [rows] bool}; kept as bitmaps, made before anything is timed."""
        faiss = self._faiss()
        self.bitmaps = {key: np.packbits(mask, bitorder="little") for key, mask in masks.items()}
        self.selectors = {key: faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits)) for key, bits in self.bitmaps.items()}

    def one_filtered(self, queries, knob, keys):
        found = [self.index.search(queries[at:at + 1], K, params=self._parameters(knob, self.selectors[key]))[1]
                 for at, key in enumerate(keys)]
        return np.concatenate(found).astype(np.int32)


class FaissHnsw(_Faiss):
    label = "faiss HNSW32"
    knobs = [[ef] for ef in (16, 24, 35, 50, 70, 100, 140, 200, 300)]

    def _name(self):
        return "HNSW32,Flat"

    def _before_add(self, index):
        index.hnsw.efConstruction = 40 if self.rows < 50_000 else 100

    def _parameters(self, knob, selector=None):
        faiss = self._faiss()
        return faiss.SearchParametersHNSW(efSearch=knob[0], **({"sel": selector} if selector else {}))


class FaissSq8(_Faiss):
    label = "faiss IVF SQ8"
    knobs = [[probes] for probes in (8, 12, 18, 25, 35, 50, 75, 110, 160, 250)]

    def _name(self):
        return f"IVF{self.lists()},SQ8"

    def _parameters(self, knob, selector=None):
        faiss = self._faiss()
        return faiss.SearchParametersIVF(nprobe=knob[0], **({"sel": selector} if selector else {}))


class FaissRabitq(_Faiss):
    """1-bit codes with fast scan, what is best by them compared by 8-bit or full vectors."""

    label = "faiss IVF RaBitQ-fs + SQ8"
    refine = "SQ8"
    knobs = [[probes, factor] for probes, factor in (
        (12, 6), (18, 8), (25, 8), (35, 10), (50, 12), (75, 15), (110, 20), (160, 30), (250, 40))]

    def _name(self):
        return f"IVF{self.lists()},RaBitQfs,Refine({self.refine})"

    def _parameters(self, knob, selector=None):
        faiss = self._faiss()
        more = {"sel": selector} if selector else {}
        below = faiss.IVFRaBitQSearchParameters()
        below.nprobe, below.qb, below.centered = knob[0], 8, False
        if selector:
            below.sel = selector
        return faiss.IndexRefineSearchParameters(k_factor=knob[1], base_index_params=below, **more)


class FaissRabitqFlat(FaissRabitq):
    label = "faiss IVF RaBitQ-fs + flat"
    refine = "Flat"

    def _name(self):
        return f"IVF{self.lists()},RaBitQfs,RFlat"


class Qdrant(Peer):
    label, package = "Qdrant Edge HNSW SQ8", "qdrant-edge-py"
    knobs = [[ef, over] for ef, over in (
        (16, 1), (24, 1), (24, 2), (32, 2), (48, 2), (64, 2), (64, 3), (96, 3), (128, 3), (200, 4), (300, 4))]
    durable = filters = changes = True
    batch_threads = False
    batch_rows = 1000

    def _config(self):
        import qdrant_edge as q

        hnsw = q.HnswIndexConfig(m=16, ef_construct=128, full_scan_threshold=10_000, max_indexing_threads=1)
        vectors = q.EdgeVectorParams(size=self.dim, distance=q.Distance.Dot, hnsw_config=hnsw,
                                     quantization_config=q.ScalarQuantizationConfig(
                                         type=q.ScalarType.Int8, quantile=0.99, memory=q.Memory.Pinned))
        return q.EdgeConfig(vectors=vectors, hnsw_config=hnsw, max_search_threads=1, optimizers=q.EdgeOptimizersConfig(
            default_segment_number=1, max_segment_size=20_000_000))

    def build(self, base, attributes):
        import qdrant_edge as q

        shard = q.EdgeShard.create(str(self.folder), self._config())
        for field in ("class", "a"):
            shard.update(q.UpdateOperation.create_field_index(field, q.PayloadSchemaType.Integer))
        self.shard = shard
        for start in range(0, self.rows, self.batch_rows):
            stop = min(start + self.batch_rows, self.rows)
            self.insert(range(start, stop), base[start:stop], attributes[start:stop])
        shard.flush()
        while shard.optimize():
            pass
        shard.flush()
        shard.close()

    def open(self, more=0):
        import qdrant_edge as q

        self.shard = q.EdgeShard.load(str(self.folder))

    def _params(self, knob):
        import qdrant_edge as q

        return q.SearchParams(hnsw_ef=knob[0], quantization=q.QuantizationSearchParams(
            rescore=True, oversampling=float(knob[1])))

    def _requests(self, queries, knob, filters=None):
        import qdrant_edge as q

        params = self._params(knob)
        return [q.SearchRequest(query=q.Query.Nearest(query), limit=K, params=params, with_payload=False, with_vector=False,
                                filter=filters[at] if filters else None)
                for at, query in enumerate(queries.tolist())]

    def prepare(self, queries, knob, keys=None):
        """What a caller in Python pays for turning arrays into requests does not count."""
        self.ready = self._requests(queries, knob, [self.named[key] for key in keys] if keys else None)

    def prepare_batch(self, queries, knob):
        import qdrant_edge as q

        params = self._params(knob)
        requests = [q.QueryRequest(query=q.Query.Nearest(query), limit=K, params=params, with_payload=False, with_vector=False)
                    for query in queries.tolist()]
        self.batches = [q.QueryBatchRequest(requests[at:at + self.batch_rows]) for at in range(0, len(requests), self.batch_rows)]

    def batch(self, queries, knob, threads=1):
        return _ids([[point.id for point in found] for batch in self.batches for found in self.shard.query_batch(batch)],
                    len(queries))

    def one(self, queries, knob):
        search = self.shard.search
        return _ids([[point.id for point in search(request)] for request in self.ready], len(queries))

    def set_filter(self, masks):
        import qdrant_edge as q

        def field(key):
            if isinstance(key, str) and key != "class":
                below = float(key) * 100
                return q.FieldCondition(key="a", range=q.RangeFloat(lt=below))
            return q.FieldCondition(key="class", match=q.MatchValue(int(key)))

        self.named = {key: q.Filter(must=[field(key)]) for key in masks}

    def one_filtered(self, queries, knob, keys):
        return self.one(queries, knob)

    def insert(self, ids, rows, attributes):
        import qdrant_edge as q

        points = [q.Point(int(row), vector, {"class": int(about[0]), "a": int(about[1])})
                  for row, vector, about in zip(ids, rows.tolist(), attributes)]
        self.shard.update(q.UpdateOperation.upsert_points(points))

    def delete(self, ids):
        import qdrant_edge as q

        self.shard.update(q.UpdateOperation.delete_points([int(each) for each in ids]))

    def sync(self):
        self.shard.flush()

    def close(self):
        self.shard.close()


class Zvec(Peer):
    label, package = "zvec IVF-RaBitQ 7 bit", "zvec"
    knobs = [[probes, refine] for probes, refine in (
        (8, 0), (12, 0), (18, 0), (25, 0), (35, 0), (50, 0), (75, 0), (50, 2), (75, 2), (110, 2), (160, 3), (250, 3))]
    durable = filters = changes = True
    mixes = False  # its mixed load never came back here, not even with calls in turns; why was not found
    batch_rows = 1000

    def _zvec(self):
        import zvec

        if not getattr(Zvec, "started", False):
            zvec.init(log_level=zvec.LogLevel.ERROR, query_threads=1, optimize_threads=1)
            Zvec.started = True
        return zvec

    def _index(self, zvec):
        return zvec.IvfRabitqIndexParam(metric_type=zvec.MetricType.IP, nlist=self.lists(), total_bits=7)

    def _query(self, zvec, knob):
        return zvec.IvfRabitqQueryParam(nprobe=knob[0], is_using_refiner=knob[1] > 0, scale_factor=float(knob[1] or 10))

    def build(self, base, attributes):
        zvec = self._zvec()
        inverted = zvec.InvertIndexParam(enable_range_optimization=True)
        schema = zvec.CollectionSchema("bench", fields=[
            zvec.FieldSchema("class", zvec.DataType.INT32, index_param=inverted),
            zvec.FieldSchema("a", zvec.DataType.INT32, index_param=inverted)],
            vectors=zvec.VectorSchema("v", zvec.DataType.VECTOR_FP32, self.dim, self._index(zvec)))
        self.collection = zvec.create_and_open(str(self.folder / "collection"), schema)
        for start in range(0, self.rows, self.batch_rows):
            stop = min(start + self.batch_rows, self.rows)
            self.insert(range(start, stop), base[start:stop], attributes[start:stop])
        self.collection.flush()
        self.collection.optimize(zvec.OptimizeOption(concurrency=1))
        self.collection.flush()
        self.collection.close()

    def open(self, more=0):
        zvec = self._zvec()
        self.writable = more > 0
        self.collection = zvec.open(str(self.folder / "collection"), zvec.CollectionOption(read_only=not self.writable))

    def prepare(self, queries, knob, keys=None):
        zvec = self._zvec()
        param = self._query(zvec, knob)
        self.ready = [zvec.Query("v", vector=query, param=param) for query in queries]
        self.texts = [self.named[key] for key in keys] if keys else [None] * len(queries)

    def one(self, queries, knob):
        if self.writable:
            return _ids([[int(doc.id) for doc in self.collection.query(query, topk=K, filter=text, output_fields=[])]
                         for query, text in zip(self.ready, self.texts)], len(queries))
        ask = self.collection.query_internal_ids
        return _ids([ask(query, topk=K, filter=text) for query, text in zip(self.ready, self.texts)], len(queries))

    def named_ids(self, found):
        """Internal numbers to ours; not timed."""
        if self.writable:
            return found
        names = self.collection.resolve_internal_ids(found.ravel().astype(np.int64))
        return np.array([-1 if name is None else int(name) for name in names], np.int32).reshape(found.shape)

    def set_filter(self, masks):
        self.named = {key: f"a < {round(float(key) * 100)}" if isinstance(key, str) else f"class = {int(key)}" for key in masks}

    def one_filtered(self, queries, knob, keys):
        return self.one(queries, knob)

    def insert(self, ids, rows, attributes):
        zvec = self._zvec()
        states = self.collection.insert([
            zvec.Doc(id=str(row), vectors={"v": vector}, fields={"class": int(about[0]), "a": int(about[1])})
            for row, vector, about in zip(ids, rows, attributes)])
        for state in states if isinstance(states, list) else [states]:
            if not state.ok():
                raise RuntimeError(f"zvec: {state}")

    def delete(self, ids):
        self.collection.delete([str(each) for each in ids])

    def sync(self):
        self.collection.flush()

    def close(self):
        self.collection.close()


PEERS = {"scann": Scann, "hnswlib": Hnswlib, "faiss-hnsw": FaissHnsw, "faiss-sq8": FaissSq8, "faiss-rabitq": FaissRabitq,
         "faiss-rabitq-flat": FaissRabitqFlat, "qdrant": Qdrant, "zvec": Zvec}
