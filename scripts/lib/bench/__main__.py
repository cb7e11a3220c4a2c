"""python -m bench decode|index|overhead|memory|retrieval|fetch|serve|ann [OPTIONS]; scripts/bench calls it."""
import argparse
import importlib
import pathlib
import sys

from . import kinodex, report

BENCHMARKS = ("decode", "index", "overhead", "memory", "retrieval", "fetch", "serve", "ann")


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench")
    chosen = parser.add_subparsers(dest="name", required=True)
    for name in BENCHMARKS:
        module = importlib.import_module(f"bench.{name}")
        one = chosen.add_parser(name, help=module.__doc__.partition(": ")[2], description=module.__doc__)
        one.add_argument("--kinodex", type=pathlib.Path, default=kinodex.default(), help="executable (build/release)")
        one.add_argument("--bundles", type=pathlib.Path, default=report.ROOT / "bundles", help="models (bundles/)")
        module.add_arguments(one)
        one.set_defaults(run=module.main)
    args = parser.parse_args()
    if args.name != "ann" and not args.kinodex.exists():  # it runs a tool beside that, if anything of ours
        sys.exit(f"error: there is no {args.kinodex}")
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
