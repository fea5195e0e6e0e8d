"""What fills the memory of one trial's process, for `scale.py`. A worker imports this, so it imports little itself."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ExtensionFileLoader, ModuleSpec, SourceFileLoader
from types import ModuleType
from typing import Any

from scale_process import memory_of, private


class ImportMeter(MetaPathFinder):
    """Adds up what each package's modules keep of this process's own memory once they are imported.

    Attributes:
        megabytes: package → of its own modules, without what these import of other packages.
    """

    def __init__(self) -> None:
        self.megabytes: dict[str, float] = {}
        # Of the modules that are being imported, what the imports inside each have taken so far.
        self._inside = [0.0]

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What the other finders find, its loader measured."""
        for finder in [finder for finder in sys.meta_path if finder is not self]:
            spec = finder.find_spec(name, path, target) if hasattr(finder, "find_spec") else None
            if spec is not None:
                if isinstance(spec.loader, SourceFileLoader | ExtensionFileLoader):
                    for step in ("create_module", "exec_module"):
                        measured = self._measured(name.partition(".")[0], getattr(spec.loader, step))
                        setattr(spec.loader, step, measured)
                return spec
        return None

    def _measured(self, package: str, load: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def measured(argument: Any) -> Any:
            before = private()
            self._inside.append(0.0)
            try:
                return load(argument)
            finally:
                used = private() - before
                self.megabytes[package] = self.megabytes.get(package, 0.0) + used - self._inside.pop()
                self._inside[-1] += used

        return measured

    def total(self) -> float:
        """Of all packages."""
        return sum(self.megabytes.values())


def parts_of_a_trial(references: list[Any]) -> tuple[dict[str, float], dict[str, float], list[str]]:
    """Do what a trial does, a part at a time; runs as a Ray task in a fresh worker.

    Args:
        references: of (encoded data, setup, hyperparameters) in the object store, wrapped: unwrapped, Ray would
            import what they are made of before this begins.

    Returns:
        Megabytes of the process's own memory by part, and of these the imports by package; and the packages
        that are loaded in the end.
    """
    parts = {"a Ray worker that has done nothing": memory_of(["self"]).own}
    meter = ImportMeter()
    sys.meta_path.insert(0, meter)
    before, imported = private(), 0.0

    def done(part: str) -> None:
        nonlocal before, imported
        parts[part] = private() - before - (meter.total() - imported)
        before, imported = private(), meter.total()

    import ray

    from lorasweep.training.loop.fine_tune import fine_tune
    from lorasweep.training.loop.state import TrainingState
    from lorasweep.training.model.classifier import build_classifier
    from lorasweep.training.model.precision import resolve_precision
    from lorasweep.training.scores.scores import predict_logits
    from lorasweep.tuning.trials.trial import loaded_base, prepare_worker

    done("beside the imports: what they leave")
    data, setup, hyperparameters = ray.get(references[0])
    device = prepare_worker(setup)
    amp = resolve_precision(setup.training_settings.precision, device, setup.base.model_type)
    loaded = loaded_base(setup.base, data.label_names, setup.training_settings.seed)
    done("base model")
    model = build_classifier(loaded, hyperparameters, setup.training_settings.seed, amp)
    state = TrainingState.start(model, hyperparameters, amp)
    done("adapter, frozen weights in the AMP type")
    predict_logits(model, data.validation, amp)
    done("evaluation: what the allocator keeps of its activations")
    for _ in fine_tune(state, data, hyperparameters, setup.training_settings):
        pass
    done("training beyond that: activations, gradients, moments")
    parts["imports"] = meter.total()
    sys.meta_path.remove(meter)
    return parts, meter.megabytes, sorted({name.partition(".")[0] for name in sys.modules})
