"""
Policies in columns: a grid, or a list of whatever policies.

Ten thousand policies as objects take longer to look at than to decide by. A grid says its axes
only; either way the kernel sees a table: thresholds and counts in columns, and the few combinations
of all else, the frames.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import product
from typing import Any, Final

import msgspec
import numpy as np

from domain.errors import BadInput
from domain.kernel.series import Floats, Integers
from domain.kpis import KPI_BY_POLICY_KEY, KPIS
from domain.policy import Policy

_KEYS: Final = tuple(kpi.policy_key for kpi in KPIS)
_COUNTS: Final = ("min_warn_windows", "min_ok_windows", "unfreeze_after_ok_windows")
_FRAME: Final = (
    "symbols",
    "required_kpis",
    "waived_when_halted",
    "no_data_freeze_windows",
    "global_freeze_symbols",
)
_COOLDOWN: Final = "cooldown_throttle"
AXES: Final = (*_KEYS, *_COUNTS, _COOLDOWN, "no_data_freeze_windows", "global_freeze_symbols")
"""What a grid may vary."""


class PolicyTable(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """
    Policies in columns.

    Attributes:
        thresholds: shape (policies, KPIs), float64, the general ones.
        min_warn, min_ok, unfreeze_after: shape (policies,), the counts of the hysteresis.
        cooldown: shape (policies,), the throttle in COOLDOWN.
        frames: policies that stand for all that the columns don't say.
        frame: shape (policies,), each policy's frame by number.
    """

    thresholds: Floats
    min_warn: Integers
    min_ok: Integers
    unfreeze_after: Integers
    cooldown: Floats
    frames: tuple[Policy, ...]
    frame: Integers

    def __len__(self) -> int:
        return len(self.frame)

    def policy(self, number: int) -> Policy:
        """Return the policy of this number."""
        frame: Policy = self.frames[self.frame[number]]
        changed: Policy = msgspec.structs.replace(
            frame,
            thresholds=dict(zip(_KEYS, self.thresholds[number].tolist(), strict=True)),
            min_warn_windows=int(self.min_warn[number]),
            min_ok_windows=int(self.min_ok[number]),
            unfreeze_after_ok_windows=int(self.unfreeze_after[number]),
            cooldown_throttle=float(self.cooldown[number]),
        )
        return changed


class PolicyGrid:
    """
    Every combination of some values, over a base policy.

    Combinations that no policy may have (`unfreeze_after_ok_windows` below `min_ok_windows`) are
    left out. The last axis given moves fastest.
    """

    def __init__(self, base: Policy, axes: Mapping[str, Sequence[float]]) -> None:
        """
        Args:
            base: what holds where no axis says otherwise.
            axes: by name (see `AXES`), the values to try; a threshold by its policy key.

        Raises:
            BadInput: if an axis is unknown or empty, or a value no policy may have.
        """
        self.base = base
        self.axes = {name: tuple(values) for name, values in axes.items()}
        for name, values in self.axes.items():
            if name not in AXES:
                raise BadInput(f"grid: unknown axis {name!r}; known: {', '.join(AXES)}")
            if not values or len(set(values)) < len(values):
                raise BadInput(f"grid: {name}: expected values, each once, was {list(values)}")
            self._check_values(name, values)
        if not len(self):
            raise BadInput(
                "grid: expected some unfreeze_after_ok_windows of at least min_ok_windows, was none"
            )

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def table(self) -> PolicyTable:
        """The grid's policies, in columns."""
        sizes = [len(values) for values in self.axes.values()]
        places = np.indices(sizes).reshape(len(sizes), -1)
        columns = {
            name: np.asarray(values)[place]
            for (name, values), place in zip(self.axes.items(), places, strict=True)
        }
        total = places.shape[1] if sizes else 1

        def column(name: str, default: float, kind: type) -> Any:
            return np.asarray(columns.get(name, np.full(total, default)), kind)

        base = self.base
        counts = [column(name, getattr(base, name), np.int64) for name in _COUNTS]
        kept = counts[2] >= counts[1]
        frames, frame = self._frames(columns, total)
        thresholds = [column(key, base.thresholds[key], np.float64)[kept] for key in _KEYS]
        return PolicyTable(
            thresholds=np.stack(thresholds, axis=1),
            min_warn=counts[0][kept],
            min_ok=counts[1][kept],
            unfreeze_after=counts[2][kept],
            cooldown=column(_COOLDOWN, base.cooldown_throttle, np.float64)[kept],
            frames=frames,
            frame=frame[kept],
        )

    def _frames(
        self, columns: Mapping[str, Any], total: int
    ) -> tuple[tuple[Policy, ...], Integers]:
        """Return a policy for each combination of the frame's axes, and which holds where."""
        varied = [name for name in _FRAME if name in self.axes]
        combinations = list(product(*(self.axes[name] for name in varied)))
        frames = []
        frame = np.zeros(total, np.int64)
        for number, combination in enumerate(combinations):
            changes: dict[str, Any] = {
                name: int(value) for name, value in zip(varied, combination, strict=True)
            }
            frames.append(msgspec.structs.replace(self.base, **changes))
            here = np.ones(total, np.bool_)
            for name, value in zip(varied, combination, strict=True):
                here &= columns[name] == value
            frame[here] = number
        return tuple(frames), frame

    def _check_values(self, name: str, values: Sequence[float]) -> None:
        for value in values:
            changes: dict[str, Any] = {name: value}
            if name in KPI_BY_POLICY_KEY:
                changes = {"thresholds": {**self.base.thresholds, name: float(value)}}
            elif name != _COOLDOWN:
                if value != int(value):
                    raise BadInput(f"grid: {name}: expected whole numbers, was {value}")
                changes = {name: int(value)}
            if name == "min_ok_windows":
                changes["unfreeze_after_ok_windows"] = max(
                    int(value), self.base.unfreeze_after_ok_windows
                )
            if name == "unfreeze_after_ok_windows":
                changes["min_ok_windows"] = min(int(value), self.base.min_ok_windows)
            try:
                msgspec.structs.replace(self.base, **changes)
            except ValueError as error:
                raise BadInput(f"grid: {error}") from None


def table_of(policies: Iterable[Policy]) -> PolicyTable:
    """Return whatever policies in columns."""
    thresholds, counts, cooldown, frame = [], [], [], []
    frames: dict[tuple[Any, ...], tuple[int, Policy]] = {}
    for policy in policies:
        thresholds.append([policy.thresholds[key] for key in _KEYS])
        counts.append(
            (policy.min_warn_windows, policy.min_ok_windows, policy.unfreeze_after_ok_windows)
        )
        cooldown.append(policy.cooldown_throttle)
        own = tuple((name, tuple(given.items())) for name, given in policy.symbols.items())
        rest = tuple(getattr(policy, name) for name in _FRAME[1:])
        frame.append(frames.setdefault((own, *rest), (len(frames), policy))[0])
    columns = np.array(counts, np.int64).reshape(-1, len(_COUNTS))
    return PolicyTable(
        thresholds=np.array(thresholds, np.float64).reshape(-1, len(_KEYS)),
        min_warn=columns[:, 0].copy(),
        min_ok=columns[:, 1].copy(),
        unfreeze_after=columns[:, 2].copy(),
        cooldown=np.array(cooldown, np.float64),
        frames=tuple(policy for _, policy in frames.values()),
        frame=np.array(frame, np.int64),
    )
