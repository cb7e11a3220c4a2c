"""Recall against queries a second: the best of a sweep's points, what lies between them, and a drawing."""
import math


def frontier(points):
    """Those that no other beats in both recall and rate, by rising recall. points: [(recall, rate, ...)]."""
    best, kept = -1.0, []
    for point in sorted(points, key=lambda point: (-point[0], -point[1])):
        if point[1] > best:
            best = point[1]
            kept.append(point)
    return kept[::-1]


def _missed(recall):
    return -math.log(max(1.0 - recall, 1e-5))


def at(points, recall):
    """Rate at a recall: between two points of the frontier along the logarithms of the rate and of what is missed; of the
    first point when all reach further (what the slowest needs is less); None where no point reaches it."""
    line = frontier(points)
    if not line or line[-1][0] < recall:
        return None
    above = next(i for i, point in enumerate(line) if point[0] >= recall)
    if above == 0:
        return line[0][1]
    low, high = line[above - 1], line[above]
    share = (_missed(recall) - _missed(low[0])) / max(_missed(high[0]) - _missed(low[0]), 1e-12)
    return math.exp(math.log(low[1]) * (1 - share) + math.log(high[1]) * share)


# Colours that can be told apart with red-green blindness (Okabe and Ito's); two of them are ours.
OURS = ("#d55e00", "#e98c3f", "#f0b27a", "#8a3600", "#a8672f", "#c29a6b")
COLOURS = ("#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f", "#8c564b")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 520, 70, 250, 46, 56
RECALLS = (0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999)


def _ticks(low, high):
    steps = [base * 10 ** power for power in range(0, 7) for base in (1, 2, 5)]
    return [step for step in steps if low <= step <= high]


class _Plot:
    def __init__(self, low, high):
        self.low, self.high = low, high
        self.left, self.right = _missed(RECALLS[0]), _missed(RECALLS[-1])
        self.parts = []

    def x(self, recall):
        return LEFT + (_missed(recall) - self.left) / (self.right - self.left) * (WIDTH - LEFT - RIGHT)

    def y(self, rate):
        share = (math.log(rate) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def line(self, x1, y1, x2, y2, style):
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>')

    def text(self, x, y, words, style=""):
        words = words.replace("&", "&amp;").replace("<", "&lt;")
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" {style}>{words}</text>')

    def grid(self, title):
        light = 'stroke="#e2e2e2"'
        for recall in RECALLS:
            self.line(self.x(recall), TOP, self.x(recall), HEIGHT - BOTTOM, light)
            self.text(self.x(recall), HEIGHT - BOTTOM + 18, f"{recall:g}"[1:], 'text-anchor="middle"')
        for rate in _ticks(self.low, self.high):
            self.line(LEFT, self.y(rate), WIDTH - RIGHT, self.y(rate), light)
            self.text(LEFT - 8, self.y(rate) + 4, f"{rate:,}", 'text-anchor="end"')
        self.text(LEFT, 24, title, 'font-size="15" font-weight="bold"')
        self.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, "recall@10", 'text-anchor="middle"')
        self.text(16, (TOP + HEIGHT - BOTTOM) / 2, "queries a second",
                  f'text-anchor="middle" transform="rotate(-90 16 {(TOP + HEIGHT - BOTTOM) / 2:.0f})"')

    def curve(self, points, colour, bold, dashed):
        seen = [(self.x(recall), self.y(rate)) for recall, rate in points if self.left <= _missed(recall) <= self.right]
        style = f'stroke="{colour}" stroke-width="{3 if bold else 1.8}"' + (' stroke-dasharray="6 4"' if dashed else "")
        if len(seen) > 1:
            self.parts.append(f'<polyline fill="none" {style} points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in seen)}"/>')
        self.parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{3.6 if bold else 2.6}" fill="{colour}"/>' for x, y in seen]


def svg(title, curves):
    """curves: {label: [(recall, rate)]}, ours named kinodex..., batches ..., batch API or ..., 100 a call. Up and to the right is better."""
    lines = {label: [point[:2] for point in frontier(points)] for label, points in curves.items()}
    shown = [rate for line in lines.values() for recall, rate in line if RECALLS[0] <= recall]
    plot = _Plot(min(shown) * 0.85, max(shown) * 1.15)
    plot.grid(title)
    ordered = sorted(lines, key=lambda label: not label.startswith("kinodex"))
    ours = sum(label.startswith("kinodex") for label in ordered)
    for row, label in enumerate(ordered):
        bold = label.startswith("kinodex")
        colour = OURS[row % len(OURS)] if bold else COLOURS[(row - ours) % len(COLOURS)]
        many = "batch" in label or "a call" in label
        plot.curve(lines[label], colour, bold, many)
        y = TOP + 14 + 21 * row
        plot.line(WIDTH - RIGHT + 18, y - 4, WIDTH - RIGHT + 46, y - 4, f'stroke="{colour}" stroke-width="{3 if bold else 1.8}"'
                  + (' stroke-dasharray="6 4"' if many else ""))
        plot.text(WIDTH - RIGHT + 54, y, label, 'font-weight="bold"' if bold else "")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'font-family="sans-serif" font-size="12" fill="#222">\n<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>\n'
            + "\n".join(plot.parts) + "\n</svg>\n")
