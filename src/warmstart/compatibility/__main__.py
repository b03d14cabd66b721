"""Try every decoder and encoder type of the installed transformers, and write the page.

python -m warmstart.compatibility                              # all: about 25 minutes on 2 cores
python -m warmstart.compatibility --decoders llama,qwen3 --encoders bert
"""

import argparse
from pathlib import Path

from warmstart.atomic import write_text
from warmstart.compatibility.matrix import cells, run
from warmstart.compatibility.page import page, result, summary
from warmstart.compatibility.tiny_configs import decoder_types, encoder_types


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m warmstart.compatibility", description=__doc__.splitlines()[0])
    parser.add_argument("--decoders", help="types, separated by commas; all where neither side is named")
    parser.add_argument("--encoders", help="types, separated by commas")
    parser.add_argument("--page", type=Path, help="write the page here")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    given = parser.parse_args()
    named = given.decoders is not None or given.encoders is not None
    decoders = given.decoders.split(",") if given.decoders else [] if named else decoder_types()
    encoders = given.encoders.split(",") if given.encoders else [] if named else encoder_types()
    done = []
    for cell in run(cells(decoders, encoders), given.jobs):
        done.append(cell)
        print(f"{cell.by:12} {cell.side} {cell.kind} with {cell.other}: {result(cell)}", flush=True)
    found = summary(done)
    for side in ("decoders", "encoders"):
        print(f"{side} clean: " + ", ".join(f"{by} {len(kinds)}" for by, kinds in found[side].items()))
    if given.page:
        write_text(given.page, page(done))


if __name__ == "__main__":
    main()
