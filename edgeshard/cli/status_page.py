"""The page of ``edgeshard status --html``: one self-contained file, with no script and no link to anything outside.

It has charts and tables of what `Store.status` and `Store.activity` found. All text in it is escaped: names of agents
are whatever a stranger chose.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from edgeshard import units
from edgeshard.cli import next_steps, status_charts
from edgeshard.cli.status_charts import Figure, Table, name_of, short
from edgeshard.display import escaped
from edgeshard.errors import EdgeshardError, printable
from edgeshard.reports import Activity, ShardStatus, StatusReport

#: How each page begins, by which an existing file is known as one.
BEGINNING: Final = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="generator" content="edgeshard">'
)

#: Shards in the table.
_SHARDS_MAX: Final = 100

_WRITER: Final = {True: "alive", False: "ended", None: "?"}

_STYLE: Final = """
:root { color-scheme: light dark; --back: #f6f6f4; --card: #fff; --text: #1f2328; --dim: #59616b; --faint: #8b939c;
  --grid: #dcdfe3; --green: #1a7f37; --yellow: #8a5a00; --red: #c4211c; --on: #fff;
  --series-0: #0969b5; --series-1: #d1570f; --series-2: #12805c; --series-3: #a8478f; --series-4: #a87900;
  --series-5: #3aa0d8; --series-6: #6b5bb5; --series-7: #7a4a2b; }
@media (prefers-color-scheme: dark) { :root { --back: #12161b; --card: #1b2128; --text: #e6e9ed; --dim: #a3acb6;
  --faint: #79838e; --grid: #363e48; --green: #4cc46a; --yellow: #e3b341; --red: #ff6b61; --on: #12161b;
  --series-0: #58a6ff; --series-1: #f0883e; --series-2: #3fb98a; --series-3: #e07cc4; --series-4: #d9b13b;
  --series-5: #7fd1f5; --series-6: #a99bf0; --series-7: #c99a76; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1360px; padding: 1.2rem 1rem 3rem; background: var(--back); color: var(--text);
  font: 15px/1.45 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.3rem; margin: 0; } h2 { font-size: 1.02rem; margin: 0 0 .25rem; }
.when, .note { color: var(--dim); font-size: .86rem; margin: .15rem 0 .7rem; }
.verdict { border-radius: 8px; padding: .6rem .9rem; margin: .8rem 0; color: var(--on); font-size: 1.1rem; }
.green .verdict { background: var(--green); } .yellow .verdict { background: var(--yellow); }
.red .verdict { background: var(--red); }
.problems { list-style: none; margin: .8rem 0; padding: 0; } .problems li { background: var(--card);
  border-left: 5px solid var(--yellow); border-radius: 4px; padding: .5rem .8rem; margin: .5rem 0; }
.problems li.red { border-color: var(--red); } .problems p { margin: .2rem 0; }
pre { margin: .3rem 0; padding: .4rem .6rem; background: var(--back); border-radius: 4px; white-space: pre-wrap;
  font: .86rem/1.4 ui-monospace, "DejaVu Sans Mono", monospace; }
dl.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .6rem; margin: 1rem 0; }
dl.facts div { background: var(--card); border-radius: 8px; padding: .5rem .8rem; }
dt { color: var(--dim); font-size: .82rem; } dd { margin: 0; font-size: 1.15rem; }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 1rem;
  align-items: start; }
section { background: var(--card); border-radius: 8px; padding: .8rem .9rem; min-width: 0; }
section.whole { grid-column: 1 / -1; }
svg { display: block; width: 100%; max-width: 560px; height: auto; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1rem; margin: .4rem 0 .2rem; padding: 0;
  font-size: .86rem; }
.legend i { display: inline-block; width: .75rem; height: .75rem; border-radius: 2px; margin-right: .4rem; }
summary { cursor: pointer; color: var(--dim); font-size: .86rem; margin-top: .3rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .86rem; width: 100%;
  font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .22rem .5rem; border-bottom: 1px solid var(--grid); overflow-wrap: normal;
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 7rem; }
th { color: var(--dim); font-weight: 600; }
th.long, td.long { white-space: normal; min-width: 16rem; text-align: left; }
"""


def page(status: StatusReport, activity: Activity, root: Path, refresh_s: float | None = None) -> str:
    """Return the page of a store.

    Args:
        status: what the store holds.
        activity: what happened lately.
        root: the store's folder.
        refresh_s: after how many seconds a browser loads the page again, because it is written again; None: never.
    """
    body = [
        f'<p class="verdict"><strong>{status.verdict}</strong>: {escaped(status.headline)}</p>',
        *_problems(status, root),
        _facts(status),
        "<main>",
        *(_section(figure) for figure in status_charts.figures(status, activity)),
        _shards(status),
        "</main>",
    ]
    return _document(root, status.at, status.verdict, body, refresh_s)


def failure_page(error: EdgeshardError, root: Path, refresh_s: float | None = None) -> str:
    """Return the page of a store that cannot be read."""
    body = [f'<p class="verdict"><strong>red</strong>: {escaped(str(error))}</p>']
    return _document(root, datetime.datetime.now(datetime.UTC), "red", body, refresh_s)


def _document(root: Path, at: datetime.datetime, verdict: str, body: Iterable[str], refresh_s: float | None) -> str:
    name = escaped(str(root.absolute()))
    refresh = [] if refresh_s is None else [f'<meta http-equiv="refresh" content="{max(1, round(refresh_s))}">']
    again = "" if refresh_s is None else f", and written again every {refresh_s:g} s"
    parts = [
        BEGINNING,
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        *refresh,
        f"<title>{verdict}: {name}</title><style>{_STYLE}</style></head>",
        f'<body class="{verdict}"><h1>{name}</h1>',
        f'<p class="when">Read at <time datetime="{at.isoformat()}">{at:%Y-%m-%d %H:%M:%S} UTC</time>{again}.</p>',
        *body,
        "</body></html>\n",
    ]
    return "\n".join(parts)


def _problems(status: StatusReport, root: Path) -> Iterator[str]:
    if not status.problems:
        return
    yield '<ul class="problems">'
    for problem in status.problems:
        step = next_steps.next_step(problem, status, root)
        commands = "".join(f"<pre>{escaped(command)}</pre>" for command in step.commands)
        yield f'<li class="{problem.level}"><p><strong>{problem.level}</strong>: {escaped(problem.text)}</p>'
        yield f"<p>{escaped(step.advice)}</p>{commands}</li>"
    yield "</ul>"


def _facts(status: StatusReport) -> str:
    alive = sum(bool(shard.alive) for shard in status.shards)
    facts = [
        ("rows in the master", f"{status.master.rows:,}"),
        ("pending rows", f"{status.pending_rows:,}{' or more' if status.uncounted_shards else ''}"),
        ("oldest pending row", _oldest(status)),
        ("shards", f"{len(status.shards):,}, {alive:,} with a writer"),
        ("missing rows", f"{status.master.missing_rows:,}"),
        ("merger", {True: "watching", False: "none watches", None: "unknown"}[status.watching]),
        ("last merge of rows", units.ago(status.master.merged_at, status.at)),
    ]
    if status.budget is not None and status.budget.limit_bytes:
        facts.append(("budget used", f"{status.budget.used_bytes / status.budget.limit_bytes:.0%}"))
    items = "".join(f"<div><dt>{name}</dt><dd>{escaped(value)}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{items}</dl>'


def _oldest(status: StatusReport) -> str:
    if status.oldest_age_s is not None:
        return units.duration(status.oldest_age_s)
    return "unknown" if status.uncounted_shards else "none"


# -- sections ---------------------------------------------------------------------------------------------------------


def _section(figure: Figure) -> str:
    parts = [f"<section><h2>{escaped(figure.title)}</h2>", f'<p class="note">{escaped(figure.note)}</p>', figure.svg]
    if figure.legend:
        items = (f'<li><i style="background:{colour}"></i>{escaped(name)}</li>' for name, colour in figure.legend)
        parts.append(f'<ul class="legend">{"".join(items)}</ul>')
    if figure.table is not None:
        parts.append(f"<details><summary>as a table</summary>{_table(figure.table)}</details>")
    return "\n".join([*parts, "</section>"])


def _shards(status: StatusReport) -> str:
    shown = status.shards[:_SHARDS_MAX]
    columns = ("agent", "pending", "oldest", "writer", "size", "merged", "not merged because")
    are_fine = not any(shard.reason for shard in status.shards)
    rows = [_shard(shard, status.at)[: -1 if are_fine else None] for shard in shown]
    table = Table(columns[: -1 if are_fine else None], rows, len(status.shards) - len(shown))
    html = _table(table) if rows else '<p class="note">None yet.</p>'
    return f'<section class="whole"><h2>Shards</h2>{html}</section>'


def _shard(shard: ShardStatus, at: datetime.datetime) -> Sequence[str]:
    oldest = "" if shard.oldest_age_s is None else units.duration(shard.oldest_age_s)
    return (
        short(name_of(shard)),
        "?" if shard.pending_rows is None else f"{shard.pending_rows:,}",
        f"up to {oldest}" if oldest and shard.oldest_is_bound else oldest,
        _WRITER[shard.alive],
        units.size(shard.size_bytes),
        units.ago(shard.merged_at, at),
        printable(shard.reason),
    )


def _table(table: Table) -> str:
    columns = [any(len(row[n]) > status_charts.NAME_CHARS for row in table.rows) for n in range(len(table.columns))]
    styles = [' class="long"' if is_long else "" for is_long in columns]
    heads = zip(styles, table.columns, strict=True)
    head = "".join(f'<th scope="col"{style}>{escaped(name)}</th>' for style, name in heads)
    rows = ("".join(map(_cell, styles, row)) for row in table.rows)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    more = f'<p class="note">and {table.more:,} more</p>' if table.more else ""
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{more}'


def _cell(style: str, text: str) -> str:
    return f"<td{style}>{escaped(text)}</td>"
