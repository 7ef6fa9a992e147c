"""Run directories made by formula, without a model: for what reads records and must not need torch."""

import shutil
from collections.abc import Callable, Sequence
from hashlib import sha256
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from PIL import Image

from segfaith.evaluation.metrics import METRICS, has_zero, is_relative, leakage
from segfaith.results.records.files import replace_file, write_rows
from segfaith.results.records.runs import Run
from segfaith.results.records.schema import CURVE_COLUMNS, RANDOMISATION_COLUMNS, RECORD_COLUMNS
from segfaith.results.records.seals import owner_of, read_json, sealed_json, sealed_table

TDD = {"gpa": 0.26, "ega": 0.25, "ria": 0.5, "dea": 0.42, "random_cells": 0.1, "mask": 0.12}
OT = {"gpa": 0.3, "ega": 0.28, "ria": 0.2, "dea": 0.25, "random_cells": 0.15, "mask": 0.1}
STABLE = {"gpa": 0.88, "ega": 0.98, "ria": 0.82, "dea": 0.96, "random_cells": 0.0, "mask": 1.0}
VARIANTS = ("dea@alpha=0.5", "dea@alpha=0.6", "dea@alpha=0.7", "dea@alpha=0.8")
OPERATORS = ("mean", "zero", "blur")
FRACTIONS = (0.2, 0.05, 0.1, 0.4, 0.6, 0.8, 1.0)
CLASSES = ("background", "bird", "boat", "cat")


def make_run(
    directory: Path,
    *,
    seed: int = 0,
    samples: Sequence[str] = tuple(f"img{i:02d}" for i in range(24)),
    data: str = "voc2012",
    model: str = "netA",
    methods: Sequence[str] = (*TDD, *VARIANTS),
    curves: bool = True,
    maps: int = 3,
    randomisation: bool = True,
    skipped: int = 1,
    failed: int = 1,
    size: int = 48,
    score: str = "probability",
) -> Path:
    """A run directory as `segfaith run` writes it, with known differences between methods and seeded noise.

    The last `skipped` samples are skipped, `failed` more have one failed method (the first); the first `maps` samples
    have maps. Every second sample has stability; sample 2 has s = 0.01, so that its relative metrics explode. Of a
    score without a natural zero no relative metric has a value.
    """
    rng = np.random.default_rng([seed, len(model), ord(model[-1])])
    records: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    again: list[dict[str, Any]] = []
    for number, sample in enumerate(samples):
        base: dict[str, Any] = {"sample_id": sample, "target": ""}
        if number >= len(samples) - skipped:
            why = {"status": "skipped", "reason": "no foreground label in the ground truth"}
            records += [base | why | {"method": name, "class_index": None} for name in methods]
            continue
        s = 0.01 if number == 2 else float(rng.uniform(0.3, 0.95))
        base |= {
            "class_index": 1 + number % 3,
            "target_area": float(rng.uniform(0.02, 0.5)),
            "target_iou": float(rng.uniform(0.3, 0.95)),
            "majority_class": 1 + number % 3,
            "s": s,
        }
        hard = rng.normal(0, 0.05)
        control = nan
        for name in sorted(methods, key=lambda one: one != "random_cells"):
            kind = name.partition("@")[0]
            if name == methods[0] and len(samples) - skipped - failed <= number < len(samples) - skipped:
                records.append(base | {"method": name, "status": "failed", "reason": "ValueError: made to fail"})
                continue
            tdd = TDD[kind] + hard + rng.normal(0, 0.03)
            odd = (OT[kind] + rng.normal(0, 0.05)) * (40 if number == 2 else 1) * (1 if number % 5 else -1)
            fair = odd * 0.5
            inserted = 0.1 + hard + rng.normal(0, 0.02) + (0.1 if kind == "gpa" else 0)
            control = tdd if name == "random_cells" else control
            stable = {
                f"stability_{one}": min(1.0, STABLE[kind] + rng.normal(0, 0.005))
                for one in ("noise", "brightness", "contrast", "blur", "flip")
            }
            row = base | {
                "method": name,
                "s_target_deleted": s * (1 - tdd),
                "s_off_deleted": s * (1 - odd),
                "s_baseline": 0.02,
                "s_inserted": 0.02 + inserted,
                "tdd_drop": s * tdd,
                "tdd_drop_gain": s * (tdd - control),
                "odd_drop": s * odd,
                "odd_drop_abs": s * abs(odd),
                "tdd": tdd,
                "tdd_gain": tdd - control,
                "odd": odd,
                "odd_abs": abs(odd),
                "leak_abs": leakage(abs(odd), tdd),
                "leak_signed": leakage(odd, tdd),
                "insertion_gain": inserted,
                "insertion_gain_rel": inserted / s,
                "odd_fair": fair,
                "odd_fair_abs": abs(fair),
                "odd_near": odd * 0.6,
                "odd_middle": odd * 0.3,
                "odd_far": odd * 0.1,
                "energy_inside": float(rng.uniform(0.2, 0.9)),
                "pointing": float(rng.integers(0, 2)),
                "gini": float(rng.uniform(0.3, 0.9)),
                "runtime_s": {"gpa": 0.05, "ega": 0.04, "random_cells": 0.001, "mask": 0.001}.get(kind, 2.0)
                + abs(rng.normal(0, 0.001)),
                "degenerate": False,
                "tied_share_target": 0.0,
                "tied_share_off": 0.1,
                "status": "ok",
                "reason": "" if number % 2 == 0 else "stability: not measured on this sample",
            }
            if number % 2 == 0:
                row |= stable | {"stability": float(np.mean(list(stable.values())))}
            row["score"] = score
            if not has_zero(score):
                row |= {one: nan for one in METRICS if is_relative(one)}
            records.append(row)
            if curves:
                own = _curves(base, name, kind, tdd, odd, inserted, rng)
                if not has_zero(score):
                    own = [one if one["kind"] == "insertion" else one | {"value": s - one["score"]} for one in own]
                rows += own
            if randomisation and number < 4:
                again += [
                    {key: base[key] for key in ("sample_id", "class_index", "target")}
                    | {"method": name, "stage": stage, "part": part, "status": "ok", "reason": "", "finished": True}
                    | {
                        "s": 0.9 - stage * 0.2,
                        "pearson": 1 - stage * 0.3,
                        "spearman": 1 - stage * (0.1 if kind == "mask" else 0.28),
                    }
                    for stage, part in enumerate(("", "classifier", "layer4", "layer3"))
                ]
        if number < maps:
            _maps(directory / "maps" / sample, methods, rng, size)
    order = {name: place for place, name in enumerate(methods)}
    records.sort(key=lambda row: (samples.index(row["sample_id"]), order[row["method"]]))
    about = description(seed, list(samples), data, model, list(methods), curves=curves)
    if score != "probability":
        about["settings"]["target"] = {"score": score}
    identity = about["identity_sha256"]
    write_rows(directory / "records" / "00000.parquet", records, RECORD_COLUMNS, identity)
    if rows:
        write_rows(directory / "curves" / "00000.parquet", rows, CURVE_COLUMNS, identity)
    if again:
        write_rows(directory / "randomisation.parquet", again, RANDOMISATION_COLUMNS, identity)
    edit_description(directory, lambda empty: empty.update(about))
    return directory


def edit_description(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the content of a `run.json` and seals it again; without one, `change` is given an empty one."""
    file = directory / "run.json"
    about = read_json(file) if file.is_file() else {}
    change(about)
    replace_file(file, lambda temporary: temporary.write_text(sealed_json(about), encoding="utf-8"))


def take_over(directory: Path) -> None:
    """Seals every file of records and curves again for the identity that `run.json` now states."""
    identity = read_json(directory / "run.json")["identity_sha256"]
    for file in (*directory.glob("records/*.parquet"), *directory.glob("curves/*.parquet")):
        file.write_bytes(sealed_table(pq.read_table(file), identity))


def edit_rows(file: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Changes the rows of a shard of records or curves, or those of the randomisation check, and seals it again."""
    columns = {"records": RECORD_COLUMNS, "curves": CURVE_COLUMNS}.get(file.parent.name, RANDOMISATION_COLUMNS)
    write_rows(file, change(pq.read_table(file).to_pylist()), columns, owner_of(file) or "")


def repeat_targets(directory: Path, names: Sequence[str] = ("dog", "dog-2")) -> Path:
    """Gives every image of a run several targets that are all alike: each row again under each name, and its maps."""
    files = [*directory.glob("records/*.parquet"), *directory.glob("curves/*.parquet")]
    for file in (*files, *directory.glob("randomisation.parquet")):
        edit_rows(file, lambda rows: [row | {"target": name} for row in rows for name in names])
    for folder in directory.glob("maps/*"):
        for name in names:
            shutil.copytree(folder, folder.with_name(f"{folder.name}@{name}"))
        shutil.rmtree(folder)
    return directory


def _curves(
    base: dict[str, Any], name: str, kind: str, tdd: float, odd: float, inserted: float, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Every operator at the first k, and every k at the first operator. Under `blur` RIA loses its lead."""
    rows = []
    s = base["s"]
    for operator in OPERATORS:
        for k in FRACTIONS if operator == OPERATORS[0] else FRACTIONS[:1]:
            scale = (k / 0.2) ** 0.5 * (0.4 if operator == "blur" and kind == "ria" else 1)
            for what, value in (("target_deletion", tdd), ("off_deletion", odd), ("insertion", inserted)):
                value = value * scale + rng.normal(0, 0.005)
                if k == FRACTIONS[0] and operator == OPERATORS[0]:
                    value = {"target_deletion": tdd, "off_deletion": odd, "insertion": inserted}[what]
                score = 0.02 + value if what == "insertion" else s * (1 - value)
                rows.append(
                    {key: base[key] for key in ("sample_id", "class_index", "target", "s")}
                    | {"method": name, "occlusion": operator, "k": k, "kind": what, "pixels": int(k * 500)}
                    | {"score": score, "s_baseline": 0.02, "value": value}
                )
    return rows


def _maps(folder: Path, methods: Sequence[str], rng: np.random.Generator, size: int) -> None:
    folder.mkdir(parents=True)
    y, x = np.mgrid[:size, :size] / size
    centre = rng.uniform(0.3, 0.7, 2)
    distance = np.hypot(y - centre[0], x - centre[1])
    for name in methods:
        heatmap = np.clip(np.exp(-(distance**2) / 0.05) + rng.normal(0, 0.05, (size, size)), 0, 1)
        np.save(folder / f"{name}.npy", heatmap.astype(np.float32))
    image = np.stack([y, x, distance.clip(0, 1)], -1)
    Image.fromarray((image * 255).astype(np.uint8)).save(folder / "image.png")
    region = np.repeat((distance < 0.25)[..., None], 3, -1)
    Image.fromarray((region * 255).astype(np.uint8)).save(folder / "target.png")


def description(
    seed: int, samples: list[str], data: str, model: str, methods: list[str], *, curves: bool = True
) -> dict[str, Any]:
    """The parts of `run.json` that results read."""
    settings = {"k": list(FRACTIONS), "occlusion": list(OPERATORS)} if curves else {"k": 0.2, "occlusion": "mean"}
    return {
        "identity_sha256": sha256(f"{seed} {data} {model} {samples}".encode()).hexdigest(),
        "settings": {
            "name": f"{data}-{model}-seed{seed}",
            "seed": seed,
            "data": {"name": data, "split": "val", "size": 224},
            "methods": {"names": methods},
            "evaluation": settings | {"stability": len(samples) // 2},
            "execution": {"shard_size": len(samples)},
        },
        "model": {"name": model, "weights": f"{model}.pth", "layer": "backbone", "classes": list(CLASSES)},
        "data": {"name": data, "split": "val", "samples": samples, "digest": "0" * 64},
        "methods": {name: {"paper": f"paper of {name}", "parameters": _parameters(name)} for name in methods},
        "versions": {"python": "3.11", "segfaith": "0.1.0", "torch": "2.14.1"},
        "machine": {"system": "Linux", "device": "a processor", "threads": 2},
        "created": "2026-01-01T00:00:00+00:00",
    }


def _parameters(method: str) -> dict[str, Any]:
    """That RIA, and what is made of it, occludes with the mean."""
    return {"occlusion": "mean"} if method.partition("@")[0] in ("ria", "dea", "random_cells") else {}


def run_of(description: dict[str, Any], records: pd.DataFrame, curves: pd.DataFrame | None = None) -> Run:
    """A run that lies nowhere, from records that were made by hand; without curves unless they are given.

    As `load_run` has it, rows that name no target are those of an image's single one.
    """
    curves = pd.DataFrame(columns=list(CURVE_COLUMNS)) if curves is None else curves
    records, curves = (rows if "target" in rows else rows.assign(target="") for rows in (records, curves))
    return Run(
        Path(str(description.get("settings", {}).get("name") or "run")),
        description,
        records,
        curves,
        pd.DataFrame(columns=list(RANDOMISATION_COLUMNS)),
    )
