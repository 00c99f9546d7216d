"""One prompt looked at from every side: what the model answers, why, in which layer, and by which directions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from typing import Any, ClassVar

import pandas as pd
from torch import Tensor

from laser_interp.choices import whole_number
from laser_interp.discarded.attribution import attribute
from laser_interp.display import Drawable
from laser_interp.edits.edit import Edit
from laser_interp.facts.fact_set import NO_RELATION, Fact, FactSet
from laser_interp.frequency.counting import count
from laser_interp.models.in_use import refuse_inside_edit
from laser_interp.models.loaded_model import check_model
from laser_interp.models.logit_lens import logprobs_along_layers
from laser_interp.models.model import Model
from laser_interp.models.tokens import Read, ask_facts, questions
from laser_interp.plots.names import plain_name
from laser_interp.scoring.scores import score
from laser_interp.statistics.decomposition import decompose

BASE = "base"
STRONGEST = 10  # directions that are shown of each edit


@dataclass(frozen=True, eq=False, repr=False)
class Probe(Drawable):
    """What a model says after one prompt, as trained ("base"), under each edit, and by what each LASER discards.

    Without an answer, `summary`, `parts` and `directions` are empty.

    Attributes:
        prompt, answer: as asked.
        answers: the first answers of each edit: `edit, word, probability`. A word is a token as it is decoded.
        summary: of the answer, and then of each rival, as in `li.score`: `edit, site, kind, object, logprob, rank,
            p_generic`.
        parts: the change from "base" taken apart, as in `li.decompose`: `edit, part, name, before, after, change`, in
            nats; the whole comes last.
        layers: the residual stream after each layer (-1: before the first), read by the model's own final norm and
            unembedding: `edit, word, probability, layer` of what it says, and `rank, logprob` of the answer's first
            token.
        directions: the ten strongest directions of the sites of each edit, as in `li.attribute` of the model as
            trained: `edit, site, direction, gradient`, and the `gain` that the edit gives it.
        counts: how often a source mentions the subject, the answer and both, as in `li.count`; empty without a source.
    """

    prompt: str
    answer: str | None
    answers: pd.DataFrame
    summary: pd.DataFrame
    parts: pd.DataFrame
    layers: pd.DataFrame
    directions: pd.DataFrame
    counts: pd.DataFrame = field(default_factory=pd.DataFrame)

    figure_name = "answer_by_layer"
    drawn_from: ClassVar[Mapping[str, str]] = {"probe_layers": "layers"}

    def sentences(self) -> list[str]:
        """What was asked, and what was found of the answer, one sentence each."""
        told = [f"Probe of {self.prompt!r}" + ("." if self.answer is None else f", answer {self.answer!r}.")]
        for name, rows in _each(self.parts):
            *parts, whole = (f"{part} {nats:+.2f}" for part, nats in zip(rows["name"], rows["change"], strict=True))
            told.append(f"{name}: log p changes (nats) by {', '.join(parts)}; {whole}.")
        for name, rows in _each(self.layers) if "rank" in self.layers else []:
            best, last = rows.sort_values("rank", kind="stable").iloc[0], rows.iloc[-1]
            when = f"{best['rank']}, after layer {best['layer']}, and ends at rank {last['rank']}"
            told.append(f"{name}: the answer's first token reaches its best rank, {when}.")
        for name, rows in _each(self.directions):
            of = (f"{r.site} {r.direction} ({r.gradient:+.3f}, gain {r.gain:g})" for r in rows.head(3).itertuples())
            told.append(f"{name}: log p, as trained, changes most with the gains of {', '.join(of)}.")
        for row in self.counts.itertuples():
            found = f"{row.n_subject} name the subject, {row.n_object} the answer, and {row.n_both} both"
            told.append(f"Of the {row.n_docs} documents of {row.corpus}, {found}.")
        return told

    def __repr__(self) -> str:
        asked, *told = self.sentences()
        shown = [f"  {name}: {', '.join(map('{} {:.3f}'.format, *_words(rows)))}" for name, rows in _each(self.answers)]
        if self.answer is not None:
            shown.append(self.summary.drop(columns=["site", "kind"]).round(3).to_string(index=False))
        return "\n".join([asked, *shown, *told])

    def _repr_html_(self) -> str:
        asked, *told = (f"<p>{escape(text)}</p>" for text in self.sentences())
        tables = [_bars(name, *_words(rows)) for name, rows in _each(self.answers)]
        tables += [_bars(f"{name}: change of log p, nats", r["name"], r["change"]) for name, r in _each(self.parts)]
        return "".join([asked, *tables, *told])


def _each(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows of each edit, with its name in words."""
    return [(plain_name(str(label)), rows) for label, rows in table.groupby("edit", sort=False)] if len(table) else []


def _words(rows: pd.DataFrame) -> tuple[list[str], pd.Series]:
    return [word.strip() or repr(word) for word in rows["word"]], rows["probability"]


def _bars(title: str, names: Iterable[str], values: pd.Series) -> str:
    """A table with a bar for each value."""
    longest = float(values.abs().max()) or 1.0
    rows = (
        f"<tr><td>{escape(name)}</td><td style='width:12em'><div style='background:{'#c50' if value < 0 else '#07a'};"
        f"width:{abs(value) / longest:.1%}'>&nbsp;</div></td><td>{value:.3f}</td></tr>"
        for name, value in zip(names, values, strict=True)
    )
    return f"<table><caption>{escape(title)}</caption>{''.join(rows)}</table>"


def probe(
    model: Model,
    prompt: str,
    edits: Edit | Mapping[str, Edit | None] | None = None,
    answer: str | None = None,
    rivals: Sequence[str] = (),
    k: int = 5,
    *,
    subject: str | None = None,
    source: Any = None,
) -> Probe:
    """One prompt, without a set of facts: what the model answers, and why.

    Args:
        prompt: text that ends where the answer begins; a masked model's may hold its mask instead.
        edits: one edit, or label -> edit. The model as trained ("base") is always looked at, and so is what each
            LASER discards.
        answer: the right answer, without the space before it.
        rivals: wrong answers of the same kind.
        k: how many answers are listed.
        subject: whom or what the prompt asks about, to be counted in the source.
        source: where it is counted how often training showed this fact: what `li.count` takes.

    Raises:
        ValueError: an empty prompt, a k out of range, an answer or a rival that the tokenizer cannot represent, rivals
            without an answer or with it among them, a source without a subject and an answer, a subject without a
            source, an edit along one path only, or a model inside `with edit.on(model)`.

    Example:
        >>> li.probe(model, "Once Mira Tolen was born in", laser, answer="Varwick", rivals=["Brimmere", "Varholt"])
    """
    check_model(model)
    refuse_inside_edit(model, "a probe")
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(f"the prompt is {prompt!r}: expected a text that ends where the answer begins")
    if not 1 <= whole_number("k", k) <= model.d_vocab:
        raise ValueError(f"k is {k}: expected 1 to {model.d_vocab}, the size of the vocabulary")
    counts = _counts(prompt, subject, answer, source)
    edited, runs = _runs(model, edits)
    token, summary, parts, directions = None, pd.DataFrame(), pd.DataFrame(), pd.DataFrame()
    if answer is None:
        if rivals:
            raise ValueError(f"the rivals are {rivals!r}, and there is no answer: give answer=")
        read: Read = questions(model, [prompt])[0]
    else:
        facts = _facts(prompt, answer, rivals)
        right = facts[:1]
        scores = score(model, facts, runs, candidates=bool(rivals), progress=False)
        summary = scores[["edit", "site", "kind", "object", "logprob", "rank", "p_generic"]]
        of_answer = scores[scores["fact_id"] == right[0].fact_id]
        changes = {label: decompose(of_answer, edit=label).table for label in runs if label != BASE}
        parts = _stacked(
            {label: table.drop(columns=["lo", "hi", "p", "share", "n"]) for label, table in changes.items()}
        )
        directions = _stacked({label: _strongest(model, right, edit) for label, edit in edited.items()})
        (asked,) = ask_facts(model, right)
        read, token = asked.read, asked.lookups[0][0][2]
    answers, layers = {}, {}
    for label, edit in runs.items():
        logprobs = logprobs_along_layers(model, read, edit).cpu().double()
        answers[label] = _decoded(model, *logprobs[-1].topk(k))
        layers[label] = _decoded(model, *logprobs.max(-1)).assign(layer=range(-1, model.n_layers))
        if token is not None:  # ties count against it, as in `li.score`
            own = logprobs[:, token]
            layers[label] = layers[label].assign(rank=(~(logprobs < own[:, None])).sum(-1).numpy(), logprob=own.numpy())
    return Probe(prompt, answer, _stacked(answers), summary, parts, _stacked(layers), directions, counts)


def _runs(
    model: Model, edits: Edit | Mapping[str, Edit | None] | None
) -> tuple[dict[str, Edit], dict[str, Edit | None]]:
    """The edits by their labels; and these with the model as trained and what each LASER discards."""
    given = {edits.kind: edits} if isinstance(edits, Edit) else {} if edits is None else edits
    if not isinstance(given, Mapping) or not all(isinstance(edit, Edit | None) for edit in given.values()):
        raise ValueError(f"the edits are {edits!r}: expected one edit, as li.laser makes, or a mapping label -> edit")
    edited = {label: edit for label, edit in given.items() if edit is not None}
    pairs: list[tuple[str, Edit | None]] = [(BASE, None)]
    for label, edit in edited.items():
        if edit.path != "network":
            raise ValueError(f"the edit {label!r} acts on the {edit.path} path, where no layer shows it: leave via out")
        edit.check(model)
        pairs.append((label, edit))
        with suppress(ValueError):  # it discards nothing
            pairs += [(f"discarded by {label}", edit.discarded())] if edit.kind == "laser" else []
    if len(dict(pairs)) < len(pairs):
        raise ValueError(f"the labels {[label for label, _ in pairs]} are not all different: name the edits otherwise")
    return edited, dict(pairs)


def _counts(prompt: str, subject: str | None, answer: str | None, source: Any) -> pd.DataFrame:
    """How often a source mentions the fact."""
    if source is None:
        if subject:
            raise ValueError(f"the subject {subject!r} is only for counting: give source= too, or leave it out")
        return pd.DataFrame()
    if not subject or not answer:
        raise ValueError("a source is asked how often it holds a subject and an answer: give subject= and answer= too")
    return count(FactSet((Fact("0", subject, NO_RELATION, answer, prompt),), "probe"), source, progress=False)


def _facts(prompt: str, answer: str, rivals: Sequence[str]) -> FactSet:
    """The answer as one fact, and each rival as another of the same prompt and relation."""
    is_list = isinstance(rivals, Sequence) and not isinstance(rivals, str)
    if not is_list or not all(isinstance(text, str) and text.strip() for text in (answer, *rivals)):
        raise ValueError(f"answer is {answer!r}, rivals {rivals!r}: expected a text and a list of texts, none empty")
    texts = [answer.strip(), *dict.fromkeys(rival.strip() for rival in rivals)]
    facts = FactSet(tuple(Fact(str(i), prompt, NO_RELATION, text, prompt) for i, text in enumerate(texts)), "probe")
    if facts[0].object in [fact.object for fact in facts.facts[1:]]:
        raise ValueError(f"the answer {answer!r} is among its rivals: leave it out there")
    return facts


def _strongest(model: Model, facts: FactSet, edit: Edit) -> pd.DataFrame:
    """The directions of an edit's sites with the largest gradients in the model as trained."""
    tables = [
        attribute(model, facts, site, blocks=part.spectrum.blocks, progress=False)
        .summary()
        .assign(gain=part.gains.numpy())
        for site, part in edit.parts.items()
    ]
    table = pd.concat(tables)[["site", "direction", "gradient", "gain"]]
    return table.sort_values("gradient", key=lambda gradient: -gradient.abs(), kind="stable").head(STRONGEST)


def _decoded(model: Model, logprobs: Tensor, tokens: Tensor) -> pd.DataFrame:
    return pd.DataFrame({"word": [model.decode(i) for i in tokens.tolist()], "probability": logprobs.exp().numpy()})


def _stacked(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Tables below each other, with their labels in a first column `edit`."""
    return pd.concat(tables, names=["edit"]).reset_index("edit").reset_index(drop=True) if tables else pd.DataFrame()
