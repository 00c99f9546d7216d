"""One store of scores: each (edit, fact, options) is scored once, whichever question asks, in memory or in a folder."""

import hashlib
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pandas as pd

from laser_interp.choices import UNIT_PROMPTS
from laser_interp.edits.edit_spec import EditSpec
from laser_interp.facts.fact_set import FactSet
from laser_interp.facts.tasks import Task
from laser_interp.models.model import Model
from laser_interp.progress import by_fractions, progress_bar
from laser_interp.selection.execution import Unit, Worker, WorkerOptions
from laser_interp.selection.plan import shards_of
from laser_interp.storage.provenance import provenance
from laser_interp.storage.run_folder import InMemory, RunFolder, open_run


@dataclass
class ScoreStore:
    """Scores of one model by one task's rule.

    Attributes:
        model, task, options: what is scored, and how. Other facts may be asked by the same rule.
        out: folder in which scores are kept, so that a stopped study can continue from them; None keeps them in memory.
    """

    model: Model
    task: Task
    options: WorkerOptions
    out: Path | None = None
    progress: bool = True
    _kept: InMemory = field(default_factory=InMemory)

    def scores(self, facts: FactSet, edits: Mapping[str, EditSpec | None], *, candidates: bool = True) -> pd.DataFrame:
        """Scores under each edit (None: the model as trained), with the columns of `li.score`.

        Args:
            edits: label -> edit.
            candidates: whether answers have to be ranked among those of their relation; if they were ranked for
                another question, or the ranks cost nothing, they are ranked here too.
        """
        ranked = self.options.candidates and (candidates or self.options.rank_by == "first_tokens")
        shards = shards_of(facts, UNIT_PROMPTS)
        with nullcontext(self._kept) if self.out is None else open_run(self.out, self._identity()) as folder:
            return self._scores(folder, shards, edits, ranked)

    def _identity(self) -> dict[str, object]:
        about = {"rule": self.task.rule, "protocol": self.task.protocol, "max_new_tokens": self.task.max_new_tokens}
        how = {name: value for name, value in asdict(self.options).items() if name not in ("memory", "candidates")}
        return provenance(self.model) | about | how

    def _scores(
        self, folder: RunFolder, shards: list[FactSet], edits: Mapping[str, EditSpec | None], ranked: bool
    ) -> pd.DataFrame:
        wanted = dict.fromkeys(edits.values())
        known: dict[tuple[int, str], pd.DataFrame] = {}
        missing: list[Unit] = []
        for i, facts in enumerate(shards):
            absent = []
            for spec in wanted:
                part = self._read(folder, facts, spec, ranked)
                if part is None:
                    absent.append(spec)
                else:
                    known[i, _text(spec)] = part
            edited = tuple(spec for spec in absent if spec is not None)
            # The edits of a shard first: the model as trained then goes on from the layer that they share
            missing += [Unit("edited", i, edited)] * bool(edited) + [Unit("base", i, ())] * (None in absent)
        prompts = [sum(len(fact.prompts) for fact in shard) for shard in shards]
        worker = Worker(self.model, self.task, shards, replace(self.options, candidates=ranked))
        total = sum(unit.n_cells * prompts[unit.shard] for unit in missing)
        with progress_bar(total=total, desc="scoring", unit=" prompts", disable=not self.progress or not total) as bar:
            add = by_fractions(bar)
            for unit in missing:
                n = unit.n_cells * prompts[unit.shard]
                for frame in worker.scores(unit, lambda share, n=n: add(share * n)):
                    name = str(frame["cell"].iloc[0])
                    folder.write_part(_name(shards[unit.shard], name, ranked), frame, "scores")
                    known[unit.shard, name] = frame
        frames = [known[i, _text(spec)].assign(edit=label) for label, spec in edits.items() for i in range(len(shards))]
        return pd.concat(frames, ignore_index=True)

    @staticmethod
    def _read(folder: RunFolder, facts: FactSet, spec: EditSpec | None, ranked: bool) -> pd.DataFrame | None:
        names = [
            _name(facts, _text(spec), with_candidates) for with_candidates in ((True,) if ranked else (True, False))
        ]
        return next((part for name in names if (part := folder.read_part(name, "scores")) is not None), None)


def _text(spec: EditSpec | None) -> str:
    return "" if spec is None else str(spec)


def _name(facts: FactSet, spec: str, ranked: bool) -> str:
    """Where the scores of one edit on some facts are kept."""
    of_edit = hashlib.sha256(f"{spec} {ranked}".encode()).hexdigest()[:16] if spec or not ranked else "base"
    return f"{facts.sha256[:16]}/{of_edit}"
