"""Draw charts here, as SVG whose colours the styles choose."""

from collections.abc import Sequence

from markupsafe import Markup

from genonaut.domain.run_history import Ended, Hour

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 720, 160, 36, 22
_RIGHT = 12
_ROW, _NAMES, _NUMBERS = 22, 200, 110


def by_hour(hours: Sequence[Hour]) -> Markup:
    """Draw how many runs ended in each hour, well and badly, one above the other."""
    most = max([hour.completed + hour.failed for hour in hours] + [1])
    step = (_WIDTH - _LEFT) / max(1, len(hours))
    room = _HEIGHT - _BOTTOM - 10
    parts = [_line(most, room), _line(0, room, at=1.0)]
    for n, hour in enumerate(hours):
        left, wide = _LEFT + n * step + step * 0.14, step * 0.72
        good, bad = (room * count / most for count in (hour.completed, hour.failed))
        base = _HEIGHT - _BOTTOM
        said = "\n".join([_words(f"{hour.begins:%H:00} UTC", hour), *map(_of_task, hour.tasks)])
        parts.append(Markup("<g><title>{}</title>").format(said))
        parts.append(_bar("good", left, base - good, wide, good))
        parts.append(_bar("bad", left, base - good - bad, wide, bad))
        parts.append(Markup("</g>"))
        if hour.begins.hour % 3 == 0:
            parts.append(
                Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                    left + wide / 2, _HEIGHT - 6, f"{hour.begins:%H:00}"
                )
            )
    whole = sum(hour.completed for hour in hours), sum(hour.failed for hour in hours)
    label = f"Runs of the last 24 hours: {whole[0]} completed, {whole[1]} failed"
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    ).format(_WIDTH + _RIGHT, _HEIGHT, label, Markup().join(parts))


def by_task(hours: Sequence[Hour]) -> Markup:
    """Draw how many runs of each task ended, well and badly, those with most first; or nothing."""
    whole: dict[str, Ended] = {}
    for one in (one for hour in hours for one in hour.tasks):
        had = whole.get(one.task, Ended(one.task, 0, 0))
        whole[one.task] = Ended(one.task, had.completed + one.completed, had.failed + one.failed)
    if not whole:
        return Markup()
    rows = sorted(whole.values(), key=lambda one: (-one.completed - one.failed, one.task))
    most = max(one.completed + one.failed for one in rows)
    room = _WIDTH - _NAMES - _NUMBERS
    parts = []
    for n, one in enumerate(rows):
        top = n * _ROW
        good, bad = (room * count / most for count in (one.completed, one.failed))
        numbers = f"{one.completed}" + (f" + {one.failed} failed" if one.failed else "")
        parts += [
            Markup("<g><title>{}</title>").format(_of_task(one)),
            Markup('<text x="0" y="{}">{}</text>').format(top + 15, one.task),
            _bar("good", _NAMES, top + 4, good, _ROW - 8),
            _bar("bad", _NAMES + good, top + 4, bad, _ROW - 8),
            Markup('<text x="{:.1f}" y="{}">{}</text></g>').format(
                _NAMES + good + bad + 6, top + 15, numbers
            ),
        ]
    label = "Runs by task: " + "; ".join(_of_task(one) for one in rows)
    return Markup(
        '<svg class="chart rows" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    ).format(_WIDTH, len(rows) * _ROW, label, Markup().join(parts))


def _words(name: str, counted: Hour | Ended) -> str:
    return f"{name}: {counted.completed} completed, {counted.failed} failed"


def _of_task(one: Ended) -> str:
    return _words(one.task, one)


def _line(value: int, room: float, at: float = 0.0) -> Markup:
    y = 10 + room * at
    return Markup(
        '<line x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>'
        '<text x="{3}" y="{4:.1f}" text-anchor="end">{5}</text>'
    ).format(_LEFT, _WIDTH, y, _LEFT - 6, y + 4, value)


def _bar(kind: str, left: float, top: float, wide: float, high: float) -> Markup:
    if high <= 0:
        return Markup()
    return Markup(
        '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="2"/>'
    ).format(kind, left, top, wide, high)
