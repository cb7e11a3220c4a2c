"""python -m kxbundles DOWNLOADS OUT NAME...: builds bundles; scripts/bundles calls it."""
import importlib
import pathlib
import sys

from . import bundle, pins


def main(downloads, out, *names):
    for name in names:
        print(f"  {name}: building", flush=True)
        recipe = importlib.import_module(f"kxbundles.{name}").build(downloads)
        digest = bundle.write(recipe, pathlib.Path(out) / name)
        if digest != pins.read().get(name):
            print(f"scripts/bundles: the manifest of {name} is {digest}, which is not what scripts/lib/kxbundles/"
                  "pins.txt says. If you changed the recipe, put it there (its embedding space changes with it).",
                  file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
