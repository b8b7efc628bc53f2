"""What a benchmark found: rows for people, JSON for programs, goals that can be missed."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


class MissingTool(Exception):
    """A tool that a case needs is not on this machine; the case is skipped by this name."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A limit, and what was measured."""

    text: str
    measured: float
    limit: float
    at_least: bool

    @property
    def met(self) -> bool:
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        return f"{'met   ' if self.met else 'MISSED'}  {self.text}: {self.measured:.2f} (goal {sign} {self.limit:g})"


@dataclass(slots=True)
class Report:
    """One case's figures."""

    title: str
    columns: Sequence[str]
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def row(self, *cells: Any) -> None:
        self.rows.append(cells)

    def at_most(self, text: str, measured: float, limit: float) -> None:
        self.goals.append(Goal(text, measured, limit, at_least=False))

    def at_least(self, text: str, measured: float, limit: float) -> None:
        self.goals.append(Goal(text, measured, limit, at_least=True))

    def __str__(self) -> str:
        cells = [tuple(self.columns), *(tuple(map(_text, row)) for row in self.rows)]
        widths = [max(len(row[index]) for row in cells) for index in range(len(self.columns))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
        return "\n".join([f"\n{self.title}", *lines, *self.notes, *map(str, self.goals)])

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1))


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of several rounds, and how far they lie apart."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{_text(self.median)} ({_text(self.low)}–{_text(self.high)})"


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of the ratios within a round: what drifts, drifts for both."""
    return statistics.median(one / other for one, other in zip(above, below, strict=True))


def merge(rounds: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Figures by name, one value a round."""
    return {name: [found[name] for found in rounds] for name in rounds[0]}


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
