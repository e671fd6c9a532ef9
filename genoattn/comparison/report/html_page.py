"""The page of a comparison: one html file that holds its style and pictures, and opens with no network."""

import base64
from collections.abc import Mapping, Sequence
from html import escape

from genoattn.comparison.report.plot_style import Plot
from genoattn.comparison.report.record import lengths, measure, missing, of, ranked
from genoattn.comparison.report.tables import every, number
from genoattn.comparison.report.text import answers, groups, method
from genoattn.evaluation.report import Table

STYLE = """
:root { color-scheme: light dark; --ink: #1c1f23; --soft: #5a6270; --page: #fff; --card: #f5f6f8; --line: #d9dde3;
  --mark: #0072b2; --warn: #fff4e0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --soft: #a2abb8; --page: #15181c; --card: #1f242a;
  --line: #363d46; --mark: #6cb8ea; --warn: #3a2f1a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 2rem 1.2rem 4rem; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .8rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .5rem; }
p { margin: .4rem 0 .8rem; max-width: 75ch; }
.soft, figcaption, caption { color: var(--soft); font-size: .875rem; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; }
.answers { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
a { color: var(--mark); }
.answer { background: var(--card); border-left: 4px solid var(--mark); border-radius: 4px; padding: .2rem 1.2rem .6rem;
  }
.answer p:first-of-type { font-weight: 600; }
.answer ol { margin: .4rem 0 .8rem; padding-left: 1.4rem; }
.lacking { background: var(--warn); border-radius: 4px; padding: .4rem 1.2rem; margin: 1rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .8rem; font-variant-numeric: tabular-nums; margin: .4rem 0 1rem; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { padding: .26rem .5rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: bottom; }
td { white-space: nowrap; }
th { font-weight: 600; }
.number { text-align: right; }
tr.first td { border-top: 2px solid var(--soft); }
.matrix td, .matrix thead th { text-align: right; line-height: 1.3; }
.matrix td, .matrix tbody th { vertical-align: middle; }
.matrix .soft { font-size: .75rem; font-weight: 400; }
.apart { font-weight: 700; background: var(--card); }
figure { margin: 1.2rem 0 1.8rem; }
img { max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line); border-radius: 4px; }
pre { background: var(--card); padding: .8rem 1rem; border-radius: 4px; white-space: pre-wrap;
  overflow-wrap: anywhere; }
summary { cursor: pointer; color: var(--mark); margin: .6rem 0; }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } nav { display: none; }
  figure, tr, .answer { break-inside: avoid; } h2, h3 { break-after: avoid; } .wide { overflow: visible; }
  table { font-size: 6.5pt; } th, td { padding: .15rem .3rem; } }
"""


def page(comparison: Mapping, plots: Sequence[Plot], pictures: Mapping[str, bytes]) -> str:
    """The whole page; the pictures are PNGs by the plot's name."""
    title = escape(comparison.get("title") or "Comparison")
    sheets = every(comparison)
    drawn = {plot.name: _picture(plot, pictures[plot.name]) for plot in plots}
    parts = [
        ("answer", "Answer", _answer(comparison)),
        ("results", "Results", _table(sheets.get("results"), titled=False) + _drawn(drawn, "quality", "tradeoff")),
        ("differences", "Differences", _differences(comparison, sheets.get("differences"))),
        ("parts", "Where layers differ", _drawn(drawn, *(name for name in drawn if name.startswith("by_")))
         + _folded(sheets.get("strata")) + _folded(sheets.get("measures"))),
        ("costs", "Costs", _drawn(drawn, "memory", "speed") + _table(sheets.get("crossovers"))
         + _folded(sheets.get("costs"))),
        ("context", "Context and longer sequences", _drawn(drawn, "context", "extrapolation")
         + _table(sheets.get("context")) + _folded(sheets.get("extrapolation"))),
        ("training", "Training", _drawn(drawn, "learning", "sweep") + _folded(sheets.get("sweep"))),
        ("expected", "Expected before the runs", _paragraphs((comparison.get("expectations") or "").split("\n\n"))),
        ("method", "Method", _paragraphs([" ".join(method(comparison))])),
        ("made", "How to make it again", _made(comparison)),
    ]  # fmt: skip
    parts = [part for part in parts if part[2]]
    links = "".join(f'<a href="#{name}">{head}</a>' for name, head, _ in parts)
    body = "".join(f'<section id="{name}"><h2>{head}</h2>{inner}</section>\n' for name, head, inner in parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>'
        f"<style>{STYLE}</style></head>\n<body><header><h1>{title}</h1>"
        f'<p class="soft">{_about(comparison)}</p><nav>{links}</nav></header>\n<main>{body}</main></body></html>\n'
    )


def _about(comparison: Mapping) -> str:
    return escape(" · ".join(comparison[key] for key in ("task", "machine", "made") if comparison.get(key)))


def _answer(comparison: Mapping) -> str:
    said = answers(comparison)
    html = "" if said else _paragraphs(["There is no verdict: no layer has a final run that left a figure."])
    for (head, sentences), length in zip(
        said, [at for at in lengths(comparison) if of(comparison, "verdicts", at)], strict=True
    ):
        ordered = "".join(f"<li>{escape(group)}</li>" for group in groups(comparison, length))
        ordered = f"<ol>{ordered}</ol>" if ordered else ""
        html += f'<div class="answer"><h3>{head}</h3>{_paragraphs(sentences)}{ordered}</div>'
    html = f'<div class="answers">{html}</div>' if said else html
    lacking = "".join(f"<li>{escape(sentence)}</li>" for sentence in missing(comparison))
    return html + (f'<div class="lacking"><p>Not everything is there:</p><ul>{lacking}</ul></div>' if lacking else "")


def _drawn(drawn: Mapping[str, str], *names: str) -> str:
    return "".join(drawn[name] for name in names if name in drawn)


def _paragraphs(texts: Sequence[str]) -> str:
    return "".join(f"<p>{escape(text.strip())}</p>" for text in texts if text.strip())


def _table(sheet: Table | None, titled: bool = True) -> str:
    if sheet is None:
        return ""
    kinds = ["" if place < sheet.texts else ' class="number"' for place in range(len(sheet.columns))]
    head = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>' for kind, name in zip(kinds, sheet.columns, strict=True)
    )
    lines, before = "", None
    for row in sheet.rows:
        cells = "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
        first = ' class="first"' if before not in (None, row[0]) and sheet.texts > 1 else ""
        lines += f"<tr{first}>{cells}</tr>\n"
        before = row[0]
    caption = f"<caption>{escape(sheet.title)}</caption>" if titled else ""
    return f'<div class="wide"><table>{caption}<thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


def _folded(sheet: Table | None) -> str:
    if sheet is None:
        return ""
    summary = f"<summary>{escape(sheet.title)} ({len(sheet.rows)} rows)</summary>"
    return f"<details>{summary}{_table(sheet, titled=False)}</details>"


def _differences(comparison: Mapping, sheet: Table | None) -> str:
    if sheet is None:
        return ""
    words = (
        f"Row minus column, in {measure(comparison)}; below it the p-value corrected for the number of pairs. "
        "Bold: told apart."
    )
    return _paragraphs([words]) + "".join(_matrix(comparison, at) for at in lengths(comparison)) + _folded(sheet)


def _matrix(comparison: Mapping, length: int) -> str:
    found = of(comparison, "verdicts", length).get("differences") or []
    pairs = {(one["first"], one["second"]): (1, one) for one in found}
    pairs |= {(one["second"], one["first"]): (-1, one) for one in found}
    names = [layer for layer in ranked(comparison, length) if any(layer in pair for pair in pairs)]
    if not names:
        return ""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    lines = ""
    for name in names:
        cells = "".join(_difference(pairs.get((name, other))) for other in names)
        lines += f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>\n'
    caption = f"<caption>{length:,} bases</caption>"
    return (
        f'<div class="wide"><table class="matrix">{caption}<thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _difference(pair: tuple[int, Mapping] | None) -> str:
    if pair is None or pair[1].get("mean") is None:
        return "<td>·</td>"
    sign, one = pair
    kind = ' class="apart"' if one.get("significant") else ""
    chance = f'<span class="soft">p {number(one.get("adjusted"), ".4f")}</span>'
    return f"<td{kind}>{number(sign * one['mean'], '+.3f')}<br>{chance}</td>"


def _picture(plot: Plot, png: bytes) -> str:
    words = escape(f"{plot.title}. {plot.caption} {plot.basis}.")
    data = base64.b64encode(png).decode()
    image = f'<img src="data:image/png;base64,{data}" alt="{words}" width="{int(plot.figure.get_figwidth() * 96)}">'
    return f"<figure>{image}<figcaption>{words}</figcaption></figure>"


def _made(comparison: Mapping) -> str:
    command = f"<pre><code>{escape(comparison['command'])}</code></pre>" if comparison.get("command") else ""
    versions = "".join(
        f"<tr><td>{escape(str(name))}</td><td>{escape(str(version))}</td></tr>"
        for name, version in (comparison.get("versions") or {}).items()
    )
    return command + (f"<table><caption>Versions</caption><tbody>{versions}</tbody></table>" if versions else "")
