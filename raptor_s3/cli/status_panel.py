"""`raptor status` as a picture on a terminal. Imported only there: it needs rich."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from raptor_s3.cli.output import printable
from raptor_s3.cli.status_text import SCOPE, facts, mix, row, sparkline

if TYPE_CHECKING:
    from rich.console import Console

    from raptor_s3.cli.status_text import Status

_WIDTH = 32
_COLORS = {"raptor": "green", "https": "yellow"}


def draw(status: Status, console: Console, *, now: float) -> None:
    """Print the panel, the mix of routes, the last puts and the reasons for HTTPS."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for label, value in facts(status, now=now):
        text = Text(printable(value))
        if label == "breaker":
            text.stylize("red" if status.breaker_open_s else "yellow" if status.breaker_failures else "green")
        rtts = [put.rtt_s for put in status.puts if put.rtt_s is not None]
        if label == "round trip" and len(rtts) > 1:
            text.append(f"  {sparkline(rtts)}", style="cyan")
        grid.add_row(label, text)
    state = "switched off" if status.is_switched_off else "avoided" if status.breaker_open_s else "ready"
    console.print(Panel(grid, title=f"raptor: {state}", title_align="left", expand=False))
    if not status.puts:
        console.print("no puts yet")
        return
    console.print(_route_bar(status))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("when", "object", "size", "way", "time", "why"):
        table.add_column(name, justify="right" if name in ("size", "time") else "left", overflow="fold", no_wrap=name != "object")
    table.columns[-1].no_wrap = False
    for put in status.puts:
        cells = [Text(printable(cell)) for cell in row(put, now)]
        cells[3].stylize(_COLORS.get(put.route, "red"))
        table.add_row(*cells)
    console.print(table)
    for reason, number in list(status.https_reasons.items())[:5]:
        console.print(Text(f"{number:>6,} x HTTPS: {printable(reason)}", style="dim"))


def _route_bar(status: Status) -> Text:
    total = sum(status.routes.values()) or 1
    bar = Text()
    for route in ("raptor", "https"):
        share = status.routes.get(route, 0) / total
        width = max(round(share * _WIDTH), 1) if share else 0
        bar.append("█" * width, style=_COLORS[route])
    return bar.append(f"  last puts: {mix(status)}, {SCOPE}")
