"""DEA's TDD for several alpha, from the maps that a run kept ([output] maps = true): no new explanations.

python examples/alpha_from_maps.py SETTINGS.toml RUN_DIR [KEY=VALUE ...]   (the settings and overrides of that run)
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import segfaith
from segfaith.attribution.fusion import fuse
from segfaith.benchmark.prepared import prepare
from segfaith.benchmark.settings import read_settings
from segfaith.paths import map_folder

settings, run = Path(sys.argv[1]), Path(sys.argv[2])
prepared = prepare(read_settings(settings, sys.argv[3:]))
tdd = []
for sample_id in prepared.plan.ids:
    sample = prepared.plan.dataset.load(sample_id, prepared.plan.settings.data.size)
    for target in prepared.targets(sample):
        folder = run / "maps" / map_folder(sample_id, target.name)
        ega, ria = (torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ("ega", "ria"))
        maps = {f"dea@alpha={alpha}": fuse(ega[None], ria[None], alpha, 0.35)[0] for alpha in (0.5, 0.6, 0.7, 0.8)}
        tdd.append(segfaith.evaluate(prepared.model, sample.image, target, maps | {"ega": ega})["tdd"])
print(pd.DataFrame(tdd).mean().round(3).to_string())
