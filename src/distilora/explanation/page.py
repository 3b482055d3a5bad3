"""Presentation of an explanation: a table for the terminal, JSON for programs, one HTML file that needs no network."""

from html import escape
from pathlib import Path

from distilora.errors import ConfigError
from distilora.explanation.explain import Explanation, Weight
from distilora.files.atomic import atomic_text, write_json
from distilora.files.output import writing_file

FOR, AGAINST = "37, 99, 166", "194, 65, 12"  # red, green, blue
NOTHING = 0.00005  # weight that is shown as 0.0000
SHOWN = 12  # parts in a table; the text itself has them all

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ margin: 0; background: #f5f8fb; color: #1f2933; font: 16px/1.55 system-ui, sans-serif; }}
main {{ max-width: 860px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }}
h1 {{ font-size: 1.5rem; margin: 0 0 .3rem; }} p {{ color: #52606d; }}
.text {{ background: #fff; color: #1f2933; border: 1px solid #dde5ec; border-radius: 10px; padding: 1.2rem 1.4rem;
  white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.9; }}
.text span {{ border-radius: 3px; }} .cut {{ color: #7b8794; text-decoration: line-through; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid #dde5ec; vertical-align: top; }}
td:first-child {{ text-align: right; white-space: nowrap; }}
</style>
</head>
<body><main>
<h1>{title}</h1>
<p>{caveats}</p>
<div class="text">{text}</div>
<p><span style="background: rgba({for_}, .5)">blue</span> speaks for {label},
<span style="background: rgba({against}, .5)">orange</span> against it; hover over a {level} to see its weight.</p>
<table><thead><tr><th>weight</th><th>{level}</th></tr></thead><tbody>
{rows}
</tbody></table>
{ngrams}</main></body>
</html>
"""


def check_output(path: str | Path) -> None:
    """Raise ConfigError if `write_explanation` cannot write to `path`."""
    path = Path(path)
    if path.suffix.lower() not in (".html", ".json"):
        raise ConfigError(f"--output: {path} given, a file ending in .html or .json wanted")
    if not path.parent.is_dir():
        raise ConfigError(f"--output: the folder of {path} does not exist; create it first")
    if path.is_dir():
        raise ConfigError(f"--output: {path} is a folder; give the name of a file")


def write_explanation(explanation: Explanation, path: str | Path) -> None:
    """Write HTML or JSON, by the file's ending; the file appears only when it is complete.

    Raises ConfigError for another ending or a missing folder, OutputError if the disk is full.
    """
    check_output(path)
    with writing_file(path):
        if Path(path).suffix.lower() == ".json":
            write_json(path, explanation.record())
            return
        with atomic_text(path) as stream:
            stream.write(page(explanation))


def page(explanation: Explanation) -> str:
    """Render the HTML file: the text with its parts shaded by weight, and the heaviest in a table."""
    most = max((abs(part.weight or 0.0) for part in explanation.parts), default=0.0) or 1.0
    text, at = [], 0
    for part in explanation.parts:
        text += [escape(explanation.text[at : part.start]), _shaded(part, most)]
        at = part.end
    text.append(escape(explanation.text[at:]))
    rows = (f"<tr><td>{part.weight:+.4f}</td><td>{escape(part.word)}</td></tr>" for part in heaviest(explanation))
    return _PAGE.format(
        title=escape(_title(explanation)), caveats="<br>".join(map(escape, _caveats(explanation))), text="".join(text),
        label=escape(explanation.label), level=explanation.level, rows="\n".join(rows), for_=FOR, against=AGAINST,
        ngrams=_ngram_table(explanation),
    )  # fmt: skip


def _ngram_table(explanation: Explanation) -> str:
    """Render the expert's heaviest n-grams as a table; nothing for a model without expert."""
    if not explanation.ngrams:
        return ""
    rows = (f"<tr><td>{n.weight:+.4f}</td><td>{escape(n.ngram)}</td></tr>" for n in explanation.ngrams[:SHOWN])
    return f"<table><thead><tr><th>weight</th><th>n-gram</th></tr></thead><tbody>{''.join(rows)}</tbody></table>\n"


def table(explanation: Explanation) -> str:
    """Render the heaviest parts as lines for a terminal."""
    lines = [_title(explanation)]
    for part in heaviest(explanation):
        word = part.word if len(part.word) <= 90 else part.word[:89] + "…"
        lines.append(f"  {part.weight:+8.4f}  {word}")
    if explanation.ngrams is not None:
        lines.append("n-gram expert:")
        lines += [f"  {ngram.weight:+8.4f}  {ngram.ngram}" for ngram in explanation.ngrams[:SHOWN]]
    return "\n".join([*lines, *_caveats(explanation)])


def heaviest(explanation: Explanation) -> list[Weight]:
    """Return the parts with the largest absolute weight, at most SHOWN."""
    read = [part for part in explanation.parts if part.weight is not None]
    return sorted(read, key=lambda part: -abs(part.weight or 0.0))[:SHOWN]


def _title(explanation: Explanation) -> str:
    return f"{explanation.answered}, by {explanation.method}"


def _caveats(explanation: Explanation) -> list[str]:
    """Explain in sentences what the weights mean."""
    level, label = explanation.level, explanation.label
    whole = "value" if explanation.numeric else "log-odds"
    differ = "differs" if explanation.numeric else "differ"
    if explanation.completeness_error is None:
        sentences = [
            f"A weight is what the {explanation.measure}{'' if explanation.numeric else f' of {label}'} loses without the {level}."
        ]
        if not explanation.numeric and all(abs(part.weight or 0.0) < NOTHING for part in explanation.parts):
            sentences.append(
                f"The answer is so sure that no single {level} changes it. Its log-odds do change: --method integrated-gradients "
                "explains them (with PyTorch and distilora[explain])."
            )
    else:
        points = f", {explanation.steps} steps" if explanation.steps else ""
        sentences = [
            f"A weight is the {level}'s contribution to the {whole}{'' if explanation.numeric else f' of {label}'}.",
            f"The {whole} {differ} from the baseline's by {explanation.difference:+.3f}{points}; "
            f"completeness error {explanation.completeness_error:.3f}.",
        ]
        if explanation.ngrams is not None:
            sentences.append("They are those of the encoder's part of the combined model.")
    if explanation.ngrams is not None:
        total = sum(ngram.weight for ngram in explanation.ngrams)
        sentences.append(
            f"The n-gram expert knows {len(explanation.ngrams):,} n-grams here, which add {total:+.3f} to the margin "
            f"of {label} over the other labels' mean (of two labels: the log-odds), each exactly its weight."
        )
    if explanation.cut:
        reader = "model" if explanation.ngrams is None else "encoder"
        sentences.append(
            f"{explanation.cut:,} of {len(explanation.parts):,} {level}s were cut off: the text is longer than the {reader} reads."
        )
    return sentences


def _shaded(part: Weight, most: float) -> str:
    if part.weight is None:
        return f'<span class="cut" title="not read: the text is too long">{escape(part.word)}</span>'
    share = abs(part.weight) / most
    colour = FOR if part.weight > 0 else AGAINST
    shade = f'<span style="background: rgba({colour}, {0.75 * share:.2f})" title="{part.weight:+.4f}">'
    return f"{shade}{escape(part.word)}</span>"
