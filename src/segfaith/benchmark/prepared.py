"""A plan with its model loaded: ready to run."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from segfaith.batching import BatchSize
from segfaith.benchmark.description import describe
from segfaith.benchmark.plan import Plan, check_bands, check_classes, make_plan, with_names
from segfaith.benchmark.setting_tables import Settings
from segfaith.benchmark.targeting import target_choice, targets_of
from segfaith.benchmark.warm_up import chosen_model, warm_up
from segfaith.models.segmentation import SegmentationModel
from segfaith.target_choice import TargetChoice
from segfaith.types import Sample, Target


@dataclass(eq=False)
class Prepared:
    """A plan with its model loaded: ready to run. `path` is how the warm-up's image was scored: see `warm_up`.

    `batch` serves all samples, so that what is learnt of the memory of one serves the others.
    `open_directory` changes the plan where the directory holds this run, with the same samples, under another `data.n`.
    """

    plan: Plan
    model: SegmentationModel
    choice: TargetChoice
    path: str
    batch: BatchSize

    @cached_property
    def description(self) -> dict[str, Any]:
        """The content of `run.json`; reads the data for its digest, once."""
        short = self.short_of_memory
        return describe(self.plan, self.model, self.path) | ({"memory": short} if short else {})

    @property
    def short_of_memory(self) -> list[str]:
        """Sentences on the sizes of which one image took more than `execution.memory`, as far as it is known."""
        memory = self.batch.memory
        return [] if memory is None else [memory.short(size) for size in memory.over]

    @property
    def identity(self) -> str:
        """What the run's files carry."""
        return str(self.description["identity_sha256"])

    def targets(self, sample: Sample) -> list[Target]:
        """The targets of a sample, see `targets_of`."""
        return targets_of(self.plan, self.model, self.choice, sample)

    def replan(self, plan: Plan) -> None:
        """Takes another plan for the same model; the description follows it."""
        self.plan = plan
        vars(self).pop("description", None)


def prepare(settings: Settings) -> Prepared:
    """Plans the run, loads the model, warms it up and checks that it fits the data and the methods.

    Raises:
        SettingsError: anything that would make every sample fail.
    """
    plan = make_plan(settings)
    if settings.execution.threads:
        torch.set_num_threads(settings.execution.threads)
    model = chosen_model(settings)
    plan = with_names(plan, model)
    check_classes(model, plan.dataset)
    check_bands(model, plan)
    batch = settings.execution.batches(model.device)
    path = warm_up(model, plan, batch)
    return Prepared(plan, model, target_choice(settings, model, plan.dataset), path, batch)
