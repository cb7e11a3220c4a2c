"""scripts/bench ann: recall and queries a second of the vector index against ScaNN, hnswlib, faiss, Qdrant and zvec, in turns."""
import pathlib
import sys
import tempfile

from . import ann_contenders, ann_data, ann_parts, ann_peers, ann_scale, ann_search, report

PARTS = {"build": ann_parts.build, "search": ann_search.search, "filters": ann_parts.filters, "inserts": ann_parts.inserts,
         "mixed": ann_parts.mixed, "open": ann_parts.opening, "scale": ann_scale.table}


def add_arguments(parser):
    parser.add_argument("--set", default="generated", help="of " + ", ".join(ann_data.SETS) + " (generated)")
    parser.add_argument("--quick", action="store_true", help="100,000 vectors: --set quick with fewer rounds")
    parser.add_argument("--engines", default="ivf,index",
                        help="ours: ivf (in memory), index (durable); what is not built is left out")
    parser.add_argument("--peers", default=",".join(ann_peers.PEERS),
                        help="of " + ", ".join(ann_peers.PEERS) + "; none for none")
    parser.add_argument("--part", default=",".join(PARTS),
                        help="of " + ", ".join(PARTS) + " (all); scale computes from the others")
    parser.add_argument("--rounds", type=int, default=3, help="turns; each chunk of queries counts with its least time (3)")
    parser.add_argument("--queries", type=int, default=ann_data.QUERIES,
                        help=f"the first so many of a set's ({ann_data.QUERIES})")
    parser.add_argument("--threads", default="1,2", help="for search (1,2)")
    parser.add_argument("--cells", type=int, default=0, help="of the index in memory (a vector each 250)")
    parser.add_argument("--seconds", type=int, default=200, help="of mixed load, 1,100 changes each (200)")
    parser.add_argument("--fresh", action="store_true", help="measure the peers too, whatever earlier runs found: what is to be "
                                                             "reported must be of one run")
    parser.add_argument("--svg", type=pathlib.Path, help="folder to draw the curves into (docs/)")
    parser.add_argument("--prepare", action="store_true", help="make the sets and build the indexes, measure nothing")


def tool_of(args):
    return pathlib.Path(args.kinodex).parents[1] / "tests" / "bench" / "kx_bench_ann"


def main(args):
    if args.quick:
        args.set, args.rounds, args.seconds = "quick", min(args.rounds, 2), min(args.seconds, 20)
    for word, known in ((args.set, ann_data.SETS), *((part, PARTS) for part in args.part.split(","))):
        if word not in known:
            sys.exit(f"error: {word} is none of {', '.join(known)}")
    out = report.Report("ann", ["scann", "faiss-cpu", "qdrant-edge-py", "zvec", "wordllama", "numpy"])
    about = ann_data.make(args.set)
    vectors = ann_data.Set(args.set)
    vectors.queries = vectors.queries[:args.queries]
    print(f"  {args.set}: {about['rows']:,} x {about['dim']}, intrinsic dimension "
          + ", ".join(f"{value} (k={k})" for k, value in about["intrinsic_dimension"].items()))
    figures = {}
    with tempfile.TemporaryDirectory(prefix="kx-bench-ann-", dir=ann_data.FOLDER) as scratch:
        keys = [key for key in (args.engines + "," + args.peers).split(",") if key and key != "none"]
        contenders = ann_contenders.make(keys, args.set, scratch, tool_of(args), args.cells)
        contenders = [one for one in contenders if _try(one.build, one)]
        if args.prepare:
            return 0
        for part in (part for part in PARTS if part in args.part.split(",")):  # changes come last: filters are of the set
            print(f"\n  {part}")
            figures[part] = PARTS[part](args, contenders, vectors)
    out.write(set=args.set, about=about, queries=len(vectors.queries), rounds=args.rounds, fresh=args.fresh, figures=figures)
    return 0


def _try(what, contender):
    try:
        what()
        return True
    except (ann_contenders.Failed, OSError) as failure:
        print(f"  {contender.label} is left out: {failure}", file=sys.stderr)
        contender.stop()
        return False
