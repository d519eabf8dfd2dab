"""The search for a method's settings on the validation part, by Optuna's tree-structured Parzen estimator.

What trial n tries follows from the results of the trials before it and from (seed, n) alone. So a search needs no
database: killed and started again, it draws the same settings, finds their runs finished, and goes on. The first third
of the trials is drawn at random, and settings that were tried are not tried again while others are found.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

import numpy as np

from tesserec.bench.suite import Range, Space, Tuning
from tesserec.environment import require_library
from tesserec.errors import ConfigError

COMBINED = 200  # values of the other settings, with which one is tried that is refused alone
INSIDE = 0.387  # of the way through a range of real numbers
REDRAWN = 50  # times, at most, where a draw comes to settings that were tried; after a fifth of them at random


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial of a search."""

    settings: tuple[str, ...]  # section.key=value
    value: float | None  # of the metric on the validation part; None: the run failed


@dataclass(frozen=True, kw_only=True)
class Study:
    """A finished search."""

    metric: str
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial | None:
        """The trial with the largest value, the first of equals; None if all of them failed."""
        finished = [trial for trial in self.trials if trial.value is not None]
        return max(finished, key=lambda trial: trial.value or 0.0) if finished else None


def search(space: Space, tuning: Tuning, measure: Callable[[int, tuple[str, ...]], float | None]) -> Study:
    """Carry out the trials of one method on one data set, one after the other.

    Args:
        space: where the settings lie.
        tuning: the budget.
        measure: trains with the settings of trial n and returns the metric on the validation part, None where it fails.

    Raises:
        MissingDependencyError: Optuna is not installed.
    """
    drawn, trials = list[dict[str, Any]](), list[Trial]()
    for number in range(tuning.trials):
        drawn.append(_draw(space, drawn, trials, tuning))
        settings = tuple(f"{key}={value}" for key, value in drawn[-1].items())
        trials.append(Trial(settings=settings, value=measure(number, settings)))
    return Study(metric=tuning.metric, trials=tuple(trials))


def require_optuna() -> Any:
    """The library, silent.

    Raises:
        MissingDependencyError: it is not installed.
    """
    optuna = require_library("optuna", extra="tune", purpose="Searching for settings")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _draw(space: Space, drawn: Sequence[dict[str, Any]], trials: Sequence[Trial], tuning: Tuning) -> dict[str, Any]:
    """The settings of the next trial."""
    found: dict[str, Any] = {}
    for attempt in range(REDRAWN + 1):
        seed = np.random.SeedSequence([tuning.seed, len(drawn), attempt]).generate_state(1)[0]
        n_random = tuning.trials if attempt > REDRAWN // 5 else -(-tuning.trials // 3)
        found = _asked(space, drawn, trials, seed=int(seed), n_random=n_random)
        if found not in drawn:
            break
    return found


def _asked(
    space: Space, drawn: Sequence[dict[str, Any]], trials: Sequence[Trial], *, seed: int, n_random: int
) -> dict[str, Any]:
    """What Optuna proposes after these trials."""
    optuna = require_optuna()
    distributions = {key: _distribution(optuna, key, where) for key, where in space.items()}
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=n_random)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for values, trial in zip(drawn, trials):
        state = optuna.trial.TrialState.FAIL if trial.value is None else optuna.trial.TrialState.COMPLETE
        study.add_trial(
            optuna.trial.create_trial(params=values, distributions=distributions, value=trial.value, state=state)
        )
    return dict(study.ask(distributions).params)


def _distribution(optuna: Any, key: str, where: Range | tuple[Any, ...]) -> Any:
    if isinstance(where, tuple):
        return optuna.distributions.CategoricalDistribution(where)
    if where.whole:
        return optuna.distributions.IntDistribution(int(where.low), int(where.high), log=where.log)
    return optuna.distributions.FloatDistribution(where.low, where.high, log=where.log)


def check_space(name: str, space: Space, load: Callable[[Sequence[str]], object]) -> None:
    """Refuse a space with a setting that the recipe does not take, before the first trial.

    Args:
        load: makes the recipe with further settings, or refuses them.

    Raises:
        ConfigError: a setting, or one of its values, is refused, whatever the others are.
    """
    values = {key: _tried(where) for key, where in space.items()}
    for key, where in space.items():
        others = [[f"{other}={value}" for value in values[other]] for other in space if other != key]
        beside = [(), *islice(product(*others), COMBINED)]
        hint = (
            " Both ends without a point make it whole numbers." if isinstance(where, Range) and not where.whole else ""
        )
        for value in values[key]:
            _require_loads(f"{name}, search", f"{key}={value}", beside, load, hint)


def _tried(where: Range | tuple[Any, ...]) -> tuple[Any, ...]:
    """Values of a setting that stand for all: those that are listed, or the ends and, of real numbers, one between."""
    if isinstance(where, tuple):
        return where
    if where.whole:
        return int(where.low), int(where.high)
    return where.low, where.low + INSIDE * (where.high - where.low), where.high


def _require_loads(
    where: str, setting: str, beside: Sequence[tuple[str, ...]], load: Callable[[Sequence[str]], object], hint: str
) -> None:
    """Refuse a setting that loads beside none of the others; the reason is that of the first."""
    refusals = list[ConfigError]()
    for more in beside:
        try:
            load([setting, *more])
        except ConfigError as error:
            refusals.append(error)
        else:
            return
    raise ConfigError(f"{where}: {refusals[0]}{hint}") from None
