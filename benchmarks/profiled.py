"""Where the time of a map's evidence goes: torch's profile of one map, by operation.

    python benchmarks/profiled.py lraspp_mobilenet_v3_large ria@precision=bf16 [--batch 49] [--rounds 7]

It prints the median seconds of some maps, then the operations of one more map that took longest. Under
`ONEDNN_VERBOSE=1` oneDNN writes a line for each of its calls too.
"""

import argparse
from statistics import median

from jobs import evidence
from torch.profiler import profile
from workload import MASKS, MODELS, make_case, read_model

from segfaith.attribution.methods import resolve_method
from segfaith.batching import batches
from segfaith.evidence.gradient import clock
from segfaith.process import keep_memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("method", help="as in `[methods] names`")
    parser.add_argument("--mask", choices=list(MASKS), default="medium")
    parser.add_argument("--batch", type=int, help="images a pass; left out: as in a run")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=20)
    given = parser.parse_args()
    keep_memory()
    case = make_case(read_model(given.model, "cpu"), MASKS[given.mask])
    instance, seconds = resolve_method(given.method, {}), []
    batch = batches(given.batch, None, case.model.device)
    for _ in range(given.rounds + 1):  # the first one compiles and fills caches
        begun = clock(case.model.device)
        evidence(case, instance, batch)
        seconds.append(clock(case.model.device) - begun)
    print(
        f"{given.model}, {given.method}, batches of {given.batch or 'the default'}: {median(seconds[1:]):.3f} s",
        flush=True,
    )
    if given.rows:
        with profile() as found:
            evidence(case, instance, batch)
        print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=given.rows))


if __name__ == "__main__":
    main()
