"""Runs a suite, run by run: what cannot run is recorded with its reason and the others go on."""

import json
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PureWindowsPath
from typing import Any, Literal

from segfaith.benchmark import runner
from segfaith.benchmark.forecast import Pace, pace
from segfaith.benchmark.lock import RunIsBusyError, RunIsGoneError, alone
from segfaith.benchmark.measuring import Measure, serial
from segfaith.benchmark.plan import RESULTS_VERSION, Plan, differences, make_plan, methods_of
from segfaith.benchmark.prepared import prepare
from segfaith.benchmark.setting_tables import Settings
from segfaith.benchmark.status import FAILURE_FILE, SUITE_FILE, forget_failed, planned_runs, run_state
from segfaith.benchmark.suites import PlannedRun, Suite
from segfaith.data.dataset import Dataset
from segfaith.errors import SegfaithError, SettingsError
from segfaith.models import MODELS
from segfaith.models.weights import cached_weights, file_digest
from segfaith.results.records import identity
from segfaith.results.records.files import replace_file
from segfaith.results.records.identity import that_matter
from segfaith.results.records.runs import read_description
from segfaith.storage import make_ready


@dataclass(frozen=True)
class Forecast:
    """What a run costs: its samples, those with stability, and model passes (None: unknown).

    `problem` says why the run could not start now, or is "".
    """

    samples: int | None
    passes: int | None
    problem: str = ""
    stable: int | None = None


@dataclass(frozen=True)
class Outcome:
    """How a run of a suite ended: `busy` where another process works on it.

    The reason of a finished run says that it was extended, what was set aside as damaged and measured again, or why
    nothing was measured.
    """

    run: PlannedRun
    state: Literal["finished", "failed", "busy"]
    reason: str = ""


def refuse_repeats(suite: Suite) -> None:
    """Refuses what a report on the suite would refuse: runs that are one run, as far as the settings tell.

    Of weights that are files the content counts. What cannot be planned yet, such as unknown methods, is left out.

    Raises:
        SettingsError: two runs of one data set, target, model, weights and seed, none of whose shared methods differs.
    """
    described: dict[str | None, list[tuple[str, dict[str, Any]]]] = {}
    for run in suite.runs:
        data = run.settings.data
        with suppress(SettingsError):  # unknown methods: the run itself says so
            about = _described(run.settings)
            described.setdefault(data.root if data.name == "folder" else None, []).append((run.name, about))
    for of_one_folder in described.values():
        identity.refuse_repeats(of_one_folder, REMEDY)


REMEDY = (
    "write an ablation as a parameter of its method ([runs.methods] ria = { grid = 7 }), put all methods into one run, "
    "or give the run other weights or another seed"
)


def _described(settings: Settings) -> dict[str, Any]:
    """What `identity` reads of a `run.json`, from the settings alone: no model, no data set."""
    model, names = settings.model, settings.methods.names
    methods = methods_of(settings)
    known, file = MODELS.get(model.name), Path(model.weights or "")
    return {
        "settings": settings.model_dump(mode="json", by_alias=True),
        "model": {
            "name": model.name,
            "weights": file_digest(file) if file.is_file() else model.weights,
            "layer": model.layer or (known and known.layer),
        },
        "data": {"name": settings.data.name, "split": settings.data.split, "samples": settings.data.ids},
        "methods": {one.name: {"parameters": one.parameters.model_dump(mode="json")} for one in methods},
        "identity": {"sources": {one.name: name for one, name in zip(methods, names, strict=False) if ":" in name}},
    }


def forecast(settings: Settings) -> Forecast:
    """Samples and passes of a run; needs no weights, and no data set either where `n` or `ids` are given."""
    settings = settings.model_copy(update={"data": settings.data.model_copy(update={"download": False})})
    try:
        plan = make_plan(settings)
    except SettingsError as error:
        return _forecast_without_data(settings, str(error))
    return Forecast(len(plan.ids), plan.passes, stable=len(plan.stability_ids))


def _forecast_without_data(settings: Settings, problem: str) -> Forecast:
    samples, stability = _samples_asked(settings), settings.evaluation.stability
    try:
        methods = methods_of(settings)
    except SettingsError:
        return Forecast(samples, None, problem)
    if samples is None:
        return Forecast(None, None, problem)
    ids = [str(number) for number in range(samples)]
    stable = (samples if stability else 0) if isinstance(stability, bool) else min(stability, samples)
    unread: Any = None  # a plan counts its samples and reads none
    dataset = Dataset(settings.data.name, settings.data.split, ids, None, unread, unread)
    return Forecast(samples, Plan(settings, dataset, ids, frozenset(ids[:stable]), methods).passes, problem, stable)


def paces(suite: Suite) -> Iterator[Pace | str]:
    """How fast each run of a suite will be, in their order, or why nobody can say; nothing is downloaded for it.

    Runs that differ in their seed and their samples alone are timed once.
    """
    known: dict[str, Pace | str] = {}
    for run in suite.runs:
        table = run.settings.model_dump(mode="json", exclude={"name": True, "seed": True, "data": {"n", "ids"}})
        alike = json.dumps(table, sort_keys=True)
        if alike not in known:
            known[alike] = _pace(run.settings)
        yield known[alike]


def _pace(settings: Settings) -> Pace | str:
    known = MODELS.get(settings.model.name)
    url = getattr(known and known.weights, "url", None) if settings.model.weights is None else None
    if url and not cached_weights(url).is_file():
        return f"the weights of {settings.model.name} are not downloaded yet"
    here = settings.data.model_copy(update={"download": False})
    try:
        return pace(prepare(settings.model_copy(update={"data": here})))
    except Exception as error:  # it will stop that run, and the others are timed
        return str(error) if isinstance(error, SegfaithError) else f"{type(error).__name__}: {error}"


def _samples_asked(settings: Settings) -> int | None:
    """The number of samples that the settings ask for; None: all that the data set has."""
    return settings.data.n if settings.data.ids is None else len(set(settings.data.ids))


def run_suite(
    suite: Suite,
    directory: Path,
    on_start: Callable[[PlannedRun, int, int], None] = lambda run, done, samples: None,
    on_sample: Callable[[str], None] = lambda sample_id: None,
    measure: Measure = serial,
    *,
    retry_failed: bool = False,
) -> Iterator[Outcome]:
    """Runs what is still to do of a suite and yields how each run ended, in the suite's order.

    Each run lies in `directory/NAME` and is resumed as `runner.run` resumes it. What stops one of them goes to its
    `failure.json` and the others go on; the next call goes on with it. Several processes may share a suite: each leaves
    out the run that another one works on.

    Args:
        on_start: called with the run, the number of its samples that are done, and that of all of them.
        on_sample: called with the id after each sample.
        measure: which processes measure, see `executors.Executors.measure`; all runs may share one pool.
        retry_failed: also measures again what failed, see `forget_failed`.

    Raises:
        SettingsError: two runs are one, see `refuse_repeats`; the directory holds runs of the suite with other
            settings; or its `suite.json` cannot be read.
        StorageError: the directory cannot be written, the disk is full, or the directory went away.
    """
    refuse_repeats(suite)
    make_ready(directory)
    _check_same(suite, directory)
    _remember(suite, directory)
    for run in suite.runs:
        outcome = _run_one(run, directory / run.name, on_start, on_sample, measure, retry_failed=retry_failed)
        yield outcome
        if not (directory / SUITE_FILE).is_file():
            raise RunIsGoneError(
                f"{directory} was removed or renamed while this suite worked: put it back, or name its new place with "
                "-o, and give the command again, which goes on with what is finished there"
            )
        if outcome.state == "failed":  # where the disk is full, every other run would fail too
            make_ready(directory)


def _run_one(
    run: PlannedRun,
    directory: Path,
    on_start: Callable[[PlannedRun, int, int], None],
    on_sample: Callable[[str], None],
    measure: Measure,
    *,
    retry_failed: bool,
) -> Outcome:
    damaged: list[str] = []
    if directory.is_symlink():
        return Outcome(run, "failed", f"{directory} is a symbolic link; a suite writes through none: remove it")
    try:
        make_ready(directory)
        prepared = prepare(run.settings)
        todo = runner.open_directory(directory, prepared, damaged.append, damaged.append)
        if retry_failed and forget_failed(directory):
            todo = runner.open_directory(directory, prepared, damaged.append)
        (directory / FAILURE_FILE).unlink(missing_ok=True)
        ids, shards = prepared.plan.ids, prepared.plan.shards
        left = sum(len(shards[shard]) for shard in todo)
        on_start(run, len(ids) - left, len(ids))
        if todo:
            runner.run_shards(prepared, directory, todo, on_sample, measure)
        state = run_state(directory)
    except RunIsGoneError as error:
        return Outcome(run, "failed", str(error))
    except RunIsBusyError as error:
        return Outcome(run, "busy", str(error))
    except Exception as error:  # the night's other runs must not be lost; what it was is kept
        known = isinstance(error, SegfaithError)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        with suppress(OSError, SettingsError):  # a full disk, perhaps, or a run.json that cannot be read
            if not run_state(directory).complete:
                _record_failure(directory, reason, "" if known else traceback.format_exc())
        return Outcome(run, "failed", "; ".join([*damaged, reason]))
    to_go = "" if state.complete else f"{len(ids) - state.done} of {len(ids)} samples are still to go"
    reason = "; ".join(filter(None, [*damaged, to_go, state.reason]))
    return Outcome(run, "failed" if to_go or state.state == "failed" else "finished", reason)


def _record_failure(directory: Path, reason: str, trace: str) -> None:
    content = {"reason": reason, "traceback": trace, "time": datetime.now(UTC).isoformat(timespec="seconds")}
    _write(directory / FAILURE_FILE, content)


def _check_same(suite: Suite, directory: Path) -> None:
    """Holds the suite against every run of it that the directory holds, those that this call leaves out among them.

    A run of this call may have fewer samples (`data.n`) in the directory: it is extended.

    Raises:
        SettingsError: one has other settings, so that the runs of this call could not be pooled with it.
    """
    for run in (*suite.runs, *suite.others):
        try:
            description = read_description(directory / run.name)
            before, version = description["settings"], description["identity"]["results_version"]
        except (SettingsError, KeyError, TypeError):  # not begun, or for `open_directory` to say what is wrong with it
            continue
        now = run.settings.model_dump(mode="json", by_alias=True)
        if run in suite.runs and _fewer(before["data"].get("n"), now["data"]["n"]):
            now["data"]["n"] = before["data"]["n"]  # the run is extended
        for key in ("channels", "mean", "std"):  # left to the model, which the run's own directory holds against it
            now["model"][key] = now["model"][key] or before["model"].get(key)
        changed = differences(
            _of_suite(before) | {"results_version": version}, _of_suite(now) | {"results_version": RESULTS_VERSION}
        )
        if changed:
            raise SettingsError(
                f"{directory} holds runs of this suite with other settings, and reports pool them; give the same "
                "settings again (or a larger data.n for all runs), choose another directory or remove it.\n"
                f"{run.name}, before -> now:\n  " + "\n  ".join(changed)
            )


def _fewer(before: int | None, now: int | None) -> bool:
    """Whether `data.n` asks for more samples now; None asks for all."""
    return before is not None and (now is None or now > before)


def _of_suite(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that runs of one suite share, without folders, which may differ between calls."""
    return {name: _without_folders(value) for name, value in that_matter(settings, "suite").items()}


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_folders(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_folders(one) for one in value]
    return PureWindowsPath(value).name if isinstance(value, str) else value  # knows both kinds of slashes


def _remember(suite: Suite, directory: Path) -> None:
    """Writes `suite.json`: the runs of this call, after those of earlier calls."""
    directory.mkdir(parents=True, exist_ok=True)
    with alone(directory):
        runs = planned_runs(directory)
        for run in suite.runs:
            runs[run.name] = {
                "suite": suite.name,
                "model": run.label,
                "seed": run.settings.seed,
                "samples": _samples_asked(run.settings),
                "weights": run.settings.model.weights,
            }
        _write(directory / SUITE_FILE, {"runs": runs})


def _write(file: Path, content: Any) -> None:
    text = json.dumps(content, indent=2)
    replace_file(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))
