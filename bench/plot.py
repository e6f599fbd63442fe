"""A picture of a comparison: tokens/s against the memory given, with what the hardware allows as a line. Writes plain SVG."""

import collections
import csv
import html
import math
import statistics

WIDTH, HEIGHT = 860, 520
LEFT, RIGHT, TOP, BOTTOM = 74, 26, 66, 62
COLORS = {"airrun": "#2f6fdb", "llama.cpp, default": "#c9562b", "llama.cpp, mmap, no repack": "#d9a028"}
MARKS = ["circle", "square", "diamond"]

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1d1f21 }
  .title { font-size: 17px; font-weight: 650 } .soft { fill: #666b72 }
  .grid { stroke: #e2e2de } .axis { stroke: #8a8f96 } .back { fill: #ffffff }
  .limit { fill: none; stroke: #1d1f21; stroke-width: 1.6; stroke-dasharray: 6 5 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e8e8e4 } .soft { fill: #9aa0a8 } .grid { stroke: #33373d } .axis { stroke: #6d737b }
    .back { fill: #1a1c1f } .limit { stroke: #e8e8e4 }
  }
"""


def write(table, target):
    with open(table, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["memory_limit_bytes"]]
    if not rows:
        raise SystemExit(f"{table} has no rows with a memory limit")
    target.write_text(draw(rows))


def number(row, field):
    return float(row[field]) if row.get(field) else 0.0


def series(rows):
    """For each competitor: memory in GiB -> its rates; 0 for what did not finish."""
    found = collections.defaultdict(lambda: collections.defaultdict(list))
    for row in rows:
        name = "airrun" if row["engine"] == "airrun" else f"{row['engine']}, {row['setting']}"
        found[name][number(row, "memory_limit_bytes") / 2**30].append(number(row, "tokens_per_second"))
    return {name: dict(sorted(points.items())) for name, points in found.items()}


def disk_rate(rows):
    """The best that fio measured: the median over the run of the better way to measure."""
    ways = ["fio_fixed_bytes_per_second", "fio_bytes_per_second"]
    rates = [[number(row, way) for row in rows if number(row, way)] for way in ways]
    return max((statistics.median(r) for r in rates if r), default=0.0)


class Axes:
    """Memory is linear, speed logarithmic: from the disk's to the memory's speed is a factor of ten and more."""

    def __init__(self, xs, ys):
        self.x1 = max(xs) * 1.06
        self.y0 = 10 ** math.floor(math.log10(min(ys) * 0.8))
        self.y1 = max(ys) * 1.5

    def x(self, value):
        return LEFT + (WIDTH - LEFT - RIGHT) * value / self.x1

    def y(self, value):
        part = math.log(max(value, self.y0) / self.y0) / math.log(self.y1 / self.y0)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part

    def y_ticks(self):
        power = self.y0
        while power <= self.y1:
            yield from (power * k for k in (1, 2, 5) if power * k <= self.y1)
            power *= 10

    def x_ticks(self):
        step = next(s for s in (0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 50, 100, 1000) if self.x1 / s <= 10)
        return [k * step for k in range(int(self.x1 / step) + 1)]


def memory_rate(rows):
    """What airrun measured of the memory: the median."""
    rates = [number(row, "memory_bytes_per_second") for row in rows if number(row, "memory_bytes_per_second")]
    return statistics.median(rates) if rates else math.inf


def limit_line(rows, axes):
    """What must be read for each token, if all memory holds weights: disk rate / (model - memory); and no faster than memory can
    be read at all."""
    rate, model = disk_rate(rows), max(number(row, "model_bytes") for row in rows) / 2**30
    if not rate:
        return []
    most = memory_rate(rows) / 2**30 / model
    points = []
    for k in range(401):
        x = axes.x1 * k / 400
        y = min(rate / 2**30 / (model - x) if x < model else math.inf, most)
        points.append((x, min(y, axes.y1)))
        if y >= axes.y1:
            break
    path = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in points)
    out = [f'<polyline class="limit" points="{path}"/>']
    x = axes.x(model)
    if model < axes.x1:
        out.append(f'<line class="axis" stroke-dasharray="2 4" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        out.append(f'<text class="soft" x="{x + 6:.1f}" y="{TOP + 14}">size of the model</text>')
    return out


def mark(kind, x, y, color, hollow):
    fill = f'fill="none" stroke="{color}" stroke-width="2"' if hollow else f'fill="{color}"'
    if kind == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5" {fill}/>'
    turn = f' transform="rotate(45 {x:.1f} {y:.1f})"' if kind == "diamond" else ""
    return f'<rect x="{x - 5:.1f}" y="{y - 5:.1f}" width="10" height="10" {fill}{turn}/>'


def error_bar(axes, x, values, color):
    """From the slowest to the fastest repetition; from the ground, if one did not finish."""
    if len(values) < 2:
        return []
    at, low, high = axes.x(x), axes.y(min(values)), axes.y(max(values))
    line = f'<line stroke="{color}" stroke-width="1.6"'
    ends = [f'{line} x1="{at - 4:.1f}" x2="{at + 4:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>' for y in (low, high)]
    return [f'{line} x1="{at:.1f}" x2="{at:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>', *ends]


def grid(axes):
    out = []
    for value in axes.y_ticks():
        y = axes.y(value)
        out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text class="soft" x="{LEFT - 9}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in axes.x_ticks():
        x = axes.x(value)
        out.append(f'<text class="soft" x="{x:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{value:g}</text>')
    bottom = HEIGHT - BOTTOM
    out.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    out.append(f'<text class="soft" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 14}" text-anchor="middle">'
               "memory given [GiB]</text>")
    return out


def legend(names, has_limit):
    out, x = [], LEFT
    for k, name in enumerate(names):
        out.append(mark(MARKS[k % 3], x + 6, 50, COLORS.get(name, "#777777"), False))
        out.append(f'<text x="{x + 18}" y="54">{html.escape(name)}</text>')
        x += 34 + 7.2 * len(name)
    if has_limit:
        out.append(f'<line class="limit" x1="{x}" x2="{x + 26}" y1="50" y2="50"/>')
        out.append(f'<text x="{x + 33}" y="54">the hardware\'s limit</text>')
    return out


def draw(rows):
    lines = series(rows)
    positive = [y for points in lines.values() for values in points.values() for y in values if y > 0] or [1.0]
    axes = Axes([x for points in lines.values() for x in points], positive)
    limit = limit_line(rows, axes)
    title = "Tokens per second against memory"
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">',
           f"<style>{STYLE}</style>", f'<rect class="back" width="{WIDTH}" height="{HEIGHT}" rx="8"/>',
           f'<text class="title" x="{LEFT}" y="28">{title}</text>', *grid(axes), *limit]
    medians = {name: {x: statistics.median(y) for x, y in points.items()} for name, points in lines.items()}
    for k, (name, points) in enumerate(medians.items()):
        color = COLORS.get(name, "#777777")
        for x, values in lines[name].items():
            out += error_bar(axes, x, values, color)
        finished = [(x, y) for x, y in points.items() if y > 0]
        path = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in finished)
        out.append(f'<polyline fill="none" stroke="{color}" stroke-width="2.2" points="{path}"/>')
        for x, y in points.items():
            # What did not finish lies hollow on the ground.
            out.append(mark(MARKS[k % 3], axes.x(x), axes.y(y) - (0 if y > 0 else 7), color, y <= 0))
    out += legend(lines, bool(limit))
    if any(y <= 0 for points in medians.values() for y in points.values()):
        out.append(f'<text class="soft" x="{WIDTH - RIGHT}" y="{HEIGHT - 14}" text-anchor="end">hollow: not finished</text>')
    return "\n".join([*out, "</svg>", ""])
