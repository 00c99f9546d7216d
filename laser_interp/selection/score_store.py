"""One store of scores: each (edit, fact, options) is scored once, whether a search or a question of a study asks."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from laser_interp.choices import UNIT_PROMPTS
from laser_interp.edits.edit_spec import EditSpec
from laser_interp.facts.fact_set import Fact, FactSet
from laser_interp.facts.tasks import Task
from laser_interp.models.model import Model
from laser_interp.progress import by_fractions, progress_bar
from laser_interp.selection.execution import Unit, Worker
from laser_interp.selection.plan import shards_of
from laser_interp.selection.settings import SearchSettings
from laser_interp.storage.provenance import provenance
from laser_interp.storage.run_folder import RunFolder, open_run


@dataclass(frozen=True)
class _Known:
    """Scores of some facts, by their names, under one edit."""

    facts: Mapping[str, Fact]
    ranked: bool
    frame: pd.DataFrame


@dataclass
class ScoreStore:
    """Scores of one model by one task's rule.

    Attributes:
        model, task, settings: what is scored, and how. Other facts may be asked by the same rule.
        out: folder in which scores are kept, so that a stopped study can continue from them; None keeps them in memory.
    """

    model: Model
    task: Task
    settings: SearchSettings
    out: Path | None = None
    progress: bool = True
    _known: dict[str, list[_Known]] = field(default_factory=dict)

    def scores(self, facts: FactSet, edits: Mapping[str, EditSpec | None], *, candidates: bool = True) -> pd.DataFrame:
        """Scores under each edit (None: the model as trained), with the columns of `li.score`.

        Args:
            edits: label -> edit.
            candidates: whether answers have to be ranked among those of their relation; if they were ranked for
                another question, or the ranks cost nothing, they are ranked here too.
        """
        ranked = self.settings.candidates and (candidates or self.settings.rank_by == "first_tokens")
        shards = shards_of(facts, UNIT_PROMPTS)
        with open_run(self.out, self._identity()) as folder:
            self._score(folder, shards, list(dict.fromkeys(edits.values())), ranked)
        frames = []
        for label, spec in edits.items():
            for shard in shards:
                frame = self.recall(shard, spec, ranked)
                assert frame is not None, f"{label} was scored on all facts"
                frames.append(frame.assign(edit=label))
        return pd.concat(frames, ignore_index=True)

    def remember(self, facts: FactSet, spec: EditSpec | None, ranked: bool, frame: pd.DataFrame) -> None:
        """Keep scores of one edit on some facts while the store lasts.

        Args:
            ranked: whether answers were ranked among those of their relation.
        """
        known = _Known({fact.fact_id: fact for fact in facts}, ranked, frame)
        of_edit = self._known.setdefault(text_of(spec), [])
        of_edit.insert(0 if ranked else len(of_edit), known)  # those with ranks are looked at first

    def recall(self, facts: FactSet, spec: EditSpec | None, ranked: bool) -> pd.DataFrame | None:
        """The scores of one edit on some facts, in their order; None if those of any fact are not known."""
        left = {fact.fact_id: fact for fact in facts}
        order = {fact_id: i for i, fact_id in enumerate(left)}
        frames = []
        for known in self._known.get(text_of(spec), ()):
            here = {name for name, fact in left.items() if known.facts.get(name) == fact}
            if here and (known.ranked or not ranked):
                frames.append(known.frame[known.frame["fact_id"].isin(here)])
                left = {name: fact for name, fact in left.items() if name not in here}
        if left:
            return None
        found = pd.concat(frames, ignore_index=True)
        return found.iloc[np.lexsort((found["prompt_id"], found["fact_id"].map(order)))].reset_index(drop=True)

    def _identity(self) -> dict[str, object]:
        about = {"rule": self.task.rule, "protocol": self.task.protocol, "max_new_tokens": self.task.max_new_tokens}
        how = {name: getattr(self.settings, name) for name in ("generic", "rank_by", "engine")}
        return provenance(self.model) | about | how

    def _score(self, folder: RunFolder, shards: list[FactSet], specs: list[EditSpec | None], ranked: bool) -> None:
        """Score what is neither known nor in the folder."""
        missing: list[Unit] = []
        for i, facts in enumerate(shards):
            absent = [spec for spec in specs if not self._is_known(folder, facts, spec, ranked)]
            edited = tuple(spec for spec in absent if spec is not None)
            # The edits of a shard first: the model as trained then goes on from the layer that they share
            missing += [Unit("edited", i, edited)] * bool(edited) + [Unit("base", i, ())] * (None in absent)
        prompts = [sum(len(fact.prompts) for fact in shard) for shard in shards]
        worker = Worker(self.model, self.task, shards, replace(self.settings, candidates=ranked))
        total = sum(unit.n_cells * prompts[unit.shard] for unit in missing)
        with progress_bar(total=total, desc="scoring", unit=" prompts", disable=not self.progress or not total) as bar:
            add = by_fractions(bar)
            for unit in missing:
                n, facts = unit.n_cells * prompts[unit.shard], shards[unit.shard]
                scored = worker.scores(unit, lambda share, n=n: add(share * n))
                for spec, frame in zip(unit.cells or (None,), scored, strict=True):
                    folder.write_part(_name(facts, text_of(spec), ranked), frame, "scores")
                    self.remember(facts, spec, ranked, frame)

    def _is_known(self, folder: RunFolder, facts: FactSet, spec: EditSpec | None, ranked: bool) -> bool:
        if self.recall(facts, spec, ranked) is not None:
            return True
        for with_candidates in (True,) if ranked else (True, False):
            name = _name(facts, text_of(spec), with_candidates)
            if (part := folder.read_part(name, "scores")) is not None:
                self.remember(facts, spec, with_candidates, part)
                return True
        return False


def text_of(spec: EditSpec | None) -> str:
    """An edit in one line; the model as trained is the empty text."""
    return "" if spec is None else str(spec)


def _name(facts: FactSet, spec: str, ranked: bool) -> str:
    """Where the scores of one edit on some facts are kept."""
    of_edit = hashlib.sha256(f"{spec} {ranked}".encode()).hexdigest()[:16] if spec or not ranked else "base"
    return f"{facts.sha256[:16]}/{of_edit}"
