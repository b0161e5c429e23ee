"""Long work on a terminal: bars with the time left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from steadygrad import doctor

__all__ = ["live_progress"]


@contextmanager
def live_progress() -> Iterator[doctor.Progress]:
    """Show stages on standard error: a bar with the time left on a terminal, one line a stage elsewhere."""
    screen = Console(stderr=True)
    percentage = TextColumn("{task.percentage:>3.0f} %")
    columns = (TextColumn("{task.description}"), BarColumn(), percentage, TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
                if not screen.is_terminal:
                    screen.print(f"{stage} ...", markup=False)
            bars.update(tasks[stage], completed=done, total=total)

        yield tell
