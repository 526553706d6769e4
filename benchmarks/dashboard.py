"""Draws docs/dashboard.svg: the dashboard's panels, with data from a Prometheus that scrapes programs under load.

    PYTHONPATH=tests python benchmarks/dashboard.py [--seconds 300]

It supports panels of the types stat and timeseries, at their positions in the dashboard. It isn't Grafana.
"""

import math
import random
import re
import tempfile
import time
from collections.abc import Iterator
from html import escape
from pathlib import Path

from harness.controlplane import ControlPlane
from harness.prometheus import Prometheus
from integration.support.account import Account
from integration.support.chart import Json
from integration.support.monitoring import DASHBOARD, Programs, programs, scraping
from integration.support.sealing_keys import new_key, put_sealed, rotate
from support import arguments

_PICTURE = Path(__file__).parents[1] / "docs" / "dashboard.svg"
_COLUMN, _LINE, _GAP = 50, 28, 4
_COLORS = ("#3274d9", "#299c46", "#e0752d", "#8f3bb8", "#c4162a", "#b7950b", "#0e8c8c", "#7a7a7a")
_LEGENDS = 4
_STYLE = """
text { font: 12px system-ui, "Helvetica Neue", "DejaVu Sans", sans-serif; fill: #3d4651 }
.title { font-weight: 600 } .row { font-size: 15px; font-weight: 600 } .small { font-size: 10px; fill: #6c7986 }
.number { font-size: 26px; font-weight: 600; text-anchor: middle } .right { text-anchor: end }
.card { fill: #fff; stroke: #d5d9de } .grid { stroke: #e6e9ec } polyline { fill: none; stroke-width: 1.5 }
"""


def main() -> None:
    """Run the programs under load, and draw the data in Prometheus."""
    seconds = arguments(__doc__, {"seconds": 300}).seconds
    with (
        tempfile.TemporaryDirectory() as folder,
        ControlPlane.start() as controlplane,
        programs(controlplane, Path(folder)) as running,
        scraping(running, Path(folder), "1s") as prometheus,
    ):
        work(running, seconds)
        _PICTURE.write_text(draw(prometheus, seconds))
    print(_PICTURE)


def work(it: Programs, seconds: float) -> None:
    """Create, update, read and delete secrets, including some that aren't Ready, and rotate the keys halfway."""
    chance, started, rotated = random.Random(1), time.monotonic(), False  # noqa: S311 - reproducible load
    teams = [_team(it.account.controlplane, f"team-{letter}") for letter in "abc"]
    others = [new_key(days=1) for _ in teams]
    while (elapsed := time.monotonic() - started) < seconds:
        name = f"SECRET_{chance.randrange(30)}"
        if it.api.post("/v1/secrets", json={"name": name, "value": str(elapsed)}).is_error:
            it.api.post(f"/v1/secrets/{name}", json={"value": str(elapsed)})
        it.api.get("/v1/secrets")
        it.review("value")
        team, key = teams[chance.randrange(3)], others[chance.randrange(3)]
        if chance.random() < elapsed / seconds / 10:
            put_sealed(team, key, f"UNKNOWN_{chance.randrange(9)}", b"value")
        else:
            team.put(name, str(elapsed).encode())
        if chance.random() < 1 / 50:
            it.account.controlplane.kubectl("delete", "secret", "devbox-account-secrets", f"--namespace={team.name}")
        if not rotated and elapsed > seconds / 2:
            rotate(it.account.controlplane)
            rotated = True
        time.sleep(chance.random() * (1 + math.sin(elapsed / 15)) / 2)


def _team(controlplane: ControlPlane, name: str) -> Account:
    controlplane.kubectl("create", "namespace", name)
    return Account.of(controlplane, name)


def draw(prometheus: Prometheus, seconds: float) -> str:
    """Return the picture of all panels for the last seconds."""
    panels: list[Json] = DASHBOARD["panels"]
    places = [panel["gridPos"] for panel in panels]
    width, height = 24 * _COLUMN, max(place["y"] + place["h"] for place in places) * _LINE
    body = "".join(part for panel in panels for part in _panel(panel, prometheus, seconds))
    title = "<title>The dashboard's panels, drawn with answers of Prometheus</title>"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
    return f'{head}{title}<style>{_STYLE}</style><rect width="100%" height="100%" fill="#f4f5f7"/>{body}</svg>\n'


def _panel(panel: Json, prometheus: Prometheus, seconds: float) -> Iterator[str]:
    place = panel["gridPos"]
    x, y = place["x"] * _COLUMN + _GAP, place["y"] * _LINE + _GAP
    width, height = place["w"] * _COLUMN - 2 * _GAP, place["h"] * _LINE - 2 * _GAP
    yield f'<g transform="translate({x} {y})">'
    if panel["type"] == "row":
        yield f'<text class="row" x="4" y="{height - 3}">{escape(panel["title"])}</text>'
    else:
        yield f'<rect class="card" width="{width}" height="{height}" rx="3"/>'
        yield f'<text class="title" x="10" y="20">{escape(panel["title"])}</text>'
        draw_type = _stat if panel["type"] == "stat" else _timeseries
        yield from draw_type(_series(panel, prometheus, seconds), _unit(panel), width, height)
    yield "</g>\n"


def _unit(panel: Json) -> str:
    unit: str = panel["fieldConfig"]["defaults"]["unit"]
    return unit


def _series(panel: Json, prometheus: Prometheus, seconds: float) -> dict[str, list[tuple[float, float]]]:
    """Return the points of each series by its legend; times are fractions of the interval."""
    now, found = time.time(), {}
    for target in panel["targets"]:
        query = target["expr"].replace("$__rate_interval", "15s")
        span = {"start": str(now - seconds), "end": str(now), "step": str(seconds / 150)}
        for each in prometheus.get("query_range", query=query, **span)["result"]:
            legend = re.sub(r"\{\{(\w+)\}\}", lambda label: each["metric"].get(label[1], ""), target["legendFormat"])  # noqa: B023
            points = [(1 - (now - at) / seconds, float(value)) for at, value in each["values"]]
            found[legend] = [point for point in points if math.isfinite(point[1])]
    return found


def _stat(series: dict[str, list[tuple[float, float]]], unit: str, width: int, height: int) -> Iterator[str]:
    number = ", ".join(_number(points[-1][1], unit) for points in series.values())
    yield f'<text class="number" x="{width / 2}" y="{height * 0.7}">{number}</text>'


def _timeseries(series: dict[str, list[tuple[float, float]]], unit: str, width: int, height: int) -> Iterator[str]:
    left, right, top, bottom = 62, width - 12, 36, height - 40
    most = max((value for points in series.values() for _, value in points), default=0) or 1
    for share in (0, 0.5, 1):
        y = bottom - share * (bottom - top)
        yield f'<path class="grid" d="M{left} {y}H{right}"/>'
        yield f'<text class="small right" x="{left - 5}" y="{y + 3}">{_number(share * most, unit)}</text>'
    shown = sorted(series.items(), key=lambda item: -max((value for _, value in item[1]), default=0))
    for number, (legend, points) in enumerate(shown):
        color = _COLORS[number % len(_COLORS)]
        line = " ".join(
            f"{left + at * (right - left):.1f},{bottom - value / most * (bottom - top):.1f}" for at, value in points
        )
        yield f'<polyline stroke="{color}" points="{line}"/>'
        if number < _LEGENDS:
            x, y = 12 + number % 2 * (width - 20) / 2, height - 22 + number // 2 * 14
            yield f'<rect x="{x}" y="{y - 7}" width="10" height="3" fill="{color}"/>'
            yield f'<text class="small" x="{x + 15}" y="{y - 2}">{escape(legend)}</text>'


def _number(value: float, unit: str) -> str:
    """Return a number with its unit, with about three digits."""
    if unit == "s":
        for size, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (0.001, "ms")):
            if value >= size:
                return f"{value / size:.3g} {name}"
        return "0 s"
    return f"{value:.3g}{'/s' if unit in {'ops', 'reqps'} else ''}"


if __name__ == "__main__":
    main()
