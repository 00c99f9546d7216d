"""The command line: `laser-interp COMMAND`."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from laser_interp.facts.fact_set import FactSet
    from laser_interp.models.model import Model


def _say(args: argparse.Namespace, told: dict[str, Any], text: str) -> None:
    """The result: in words, or with `--json` as one document and nothing else."""
    print(json.dumps(told, indent=2) if args.json else text)


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for JSON, which knows no NaN."""
    return json.loads(frame.to_json(orient="records"))


def _reproduce(args: argparse.Namespace) -> None:
    from laser_interp.studies.examples import reproduce

    summary = reproduce(args.out, progress=not args.quiet)
    text = (Path(args.out) / "SUMMARY.md").read_text(encoding="utf-8")
    _say(args, summary, f"{text}\nAll numbers: {Path(args.out) / 'summary.json'}")


def _train(args: argparse.Namespace) -> None:
    from laser_interp.organism.corpus import CorpusSettings
    from laser_interp.organism.train import TrainingSettings, train

    folder = train(
        CorpusSettings(seed=args.seed, alpha=args.alpha),
        TrainingSettings(seed=args.seed, steps=args.steps, stop_at=args.stop_at),
        args.out,
        progress=not args.quiet,
    )
    _say(
        args,
        {"checkpoint": str(folder)},
        f"The checkpoint is in {folder}; load it with laser_interp.load_model({str(folder)!r}).",
    )


def _compress(args: argparse.Namespace) -> None:
    from laser_interp.edits.compression import compress, export, peak_memory
    from laser_interp.edits.edit import parse_laser
    from laser_interp.models.model import load_model

    model = load_model(args.model, revision=args.revision, device=args.device)
    edit = parse_laser(model, args.edit)
    told: dict[str, Any] = {"checkpoint": args.out}
    if args.dense:
        text = f"The edited model, dense, is in {export(model, edit, args.out)}; transformers loads it."
    else:
        table = compress(model, edit, args.out)
        told["matrices"] = _records(table)
        text = f"{table.to_string(index=False)}\n"
        text += f"The compressed model is in {args.out}; laser_interp.load_model({args.out!r}) loads it."
    if args.measure:
        with tempfile.TemporaryDirectory() as folder:
            before = peak_memory(model.save_checkpoint(Path(folder) / "before"))
        after = peak_memory(args.out)
        told["peak_bytes"] = {"before": before, "after": after}
        text += f"\nPeak memory to load and run: {before / 1e6:.0f} MB before, {after / 1e6:.0f} MB after."
    _say(args, told, text)


def _load(args: argparse.Namespace) -> tuple[Model, FactSet]:
    from laser_interp.facts.fact_set import load_facts
    from laser_interp.models.model import load_model

    facts = load_facts(args.facts)  # the quick one first: a wrong path is told at once
    return load_model(args.model, revision=args.revision, device=args.device, dtype=args.dtype), facts


def _bands(texts: Sequence[str]) -> list[tuple[int, int]]:
    found = []
    for text in texts:
        match = re.fullmatch(r"(\d+):(\d+)", text)
        if match is None:
            raise ValueError(f"the band {text!r} is not of the form START:STOP, as in 0:10")
        found.append((int(match[1]), int(match[2])))
    return found


def _sweep(args: argparse.Namespace) -> None:
    from laser_interp.selection.grid_run import estimate, sweep

    model, facts = _load(args)
    asked: dict[str, Any] = {
        "matrices": args.matrices,
        "layers": args.layers,
        "rhos": args.rho,
        "alphas": args.alpha,
        "bands": _bands(args.band),
        "controls": args.control,
        "seeds": args.seeds,
        "split": args.split,
        "seed": args.seed,
        "candidates": not args.no_candidates,
        "memory": args.memory,
    }
    if args.dry_run:
        needed = estimate(model, facts, **asked)
        _say(args, asdict(needed), str(needed))
        return
    if args.out is None:
        raise ValueError("--out is missing: a folder for the results, or --dry-run")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*lifted to rank 1 or dropped")  # the notes say it
        found = sweep(
            model,
            facts,
            **asked,
            stop_hopeless=args.stop_hopeless,
            engine=args.engine,
            out=args.out,
            executor=args.executor,
            workers=args.workers,
            progress=not args.quiet,
        )
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    chosen = found.select()
    test = found.cells[found.cells["split"] == "test"]
    row = test[test["cell"] == chosen.cell].to_dict("records")
    base = test[test["kind"] == "base"].to_dict("records")
    told: dict[str, Any] = {
        "selected": chosen.cell,
        "improves_validation": chosen.improves,
        "validation": {
            "base": {"top1": chosen.base_top1, "loss": chosen.base_loss},
            "edit": {"top1": chosen.top1, "loss": chosen.loss},
        },
        "test": {
            name: {k: one[0][k] for k in ("n", "top1", "loss")} if one else None
            for name, one in (("base", base), ("edit", row))
        },
        "cells": str(Path(args.out) / "cells.parquet"),
    }
    lines = [f"Validation selects {chosen.cell}{'' if chosen.improves else ', which is no better than no edit'}."]
    for split in ("validation", "test"):
        before, after = told[split]["base"], told[split]["edit"]
        if before and after:
            lines.append(
                f"{split}: top-1 {before['top1']:.4f} -> {after['top1']:.4f}, "
                f"loss {before['loss']:.4f} -> {after['loss']:.4f}"
            )
    _say(args, told, "\n".join([*lines, f"All cells: {told['cells']}"]))


def _compose(args: argparse.Namespace) -> None:
    from laser_interp.selection.composition import compose

    model, facts = _load(args)
    found = compose(
        model,
        facts,
        matrices=args.matrices,
        layers=args.layers,
        rhos=args.rho,
        split=args.split,
        seed=args.seed,
        memory=args.memory,
        out=args.out,
        progress=not args.quiet,
    )
    scores = found.scores[["edit", "split", "n", "top1", "loss"]]
    told: dict[str, Any] = {"edit": str(found) if found.ranks else None, "scores": _records(scores)}
    text = f"Composed: {found}" if found.ranks else "No step improved on validation."
    text += f"\n{scores.to_string(index=False)}"
    if args.out is not None:
        told["steps"] = str(Path(args.out) / "steps.parquet")
        text += f"\nAll steps: {told['steps']}"
    _say(args, told, text)


def _count(args: argparse.Namespace) -> None:
    import pandas as pd

    from laser_interp.facts.fact_set import load_facts
    from laser_interp.frequency import Index, count
    from laser_interp.storage.tables import write_table

    if (args.index is None) == (args.corpus is None):
        raise ValueError("expected either --corpus, to scan, or --index, to ask one that `laser-interp index` made")
    facts = load_facts(args.facts)
    if args.index is not None:
        frame = Index(args.index).count(facts, window=args.window, progress=not args.quiet)
        write_table(frame, args.out, "counts", frame.attrs["provenance"])
    else:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            frame = count(
                facts,
                args.corpus,
                text_column=args.text_column,
                document=args.document,
                window=args.window,
                errors="skip" if args.skip else "raise",
                out=args.out,
                executor=args.executor,
                workers=args.workers,
                progress=not args.quiet,
            )
        for one in told:
            print(f"note: {one.message}", file=sys.stderr)
    seen = {name: int((frame[f"n_{name}"] > 0).sum()) for name in ("both", "subject", "object")}
    n_docs = int(frame["n_docs"].iloc[0])
    quartiles = pd.Series(frame["n_both"]).quantile([0.25, 0.5, 0.75, 1.0]).round().astype(int).tolist()
    _say(
        args,
        {"n_facts": len(frame), "n_docs": n_docs, "n_with": seen, "quartiles_of_both": quartiles, "counts": args.out},
        f"{len(frame)} facts in {n_docs} documents: {seen['both']} have a document with subject and object, "
        f"{seen['subject']} one with the subject, {seen['object']} one with the object.\n"
        f"Documents with both, quartiles and most: {', '.join(map(str, quartiles))}.\nAll counts: {args.out}",
    )


def _index(args: argparse.Namespace) -> None:
    from laser_interp.frequency import build_index

    index = build_index(
        args.corpus,
        args.out,
        text_column=args.text_column,
        document=args.document,
        errors="skip" if args.skip else "raise",
        backend=args.backend,
        progress=not args.quiet,
    )
    if skipped := index.about["skipped"]:
        shown = "; ".join(f"{where} ({why})" for where, why in skipped[:5])
        print(f"note: {len(skipped)} could not be read and were skipped: {shown}", file=sys.stderr)
    _say(
        args,
        {"index": args.out, "n_docs": index.about["n_docs"], "skipped": index.about["skipped"]},
        f"The index of {index.about['n_docs']} documents is in {args.out}.",
    )


def _decode(args: argparse.Namespace) -> None:
    from laser_interp.discarded.answers import CATEGORIES, continuations, favoured_answers
    from laser_interp.edits.edit import parse_laser
    from laser_interp.frequency import frequent_words
    from laser_interp.selection.cells import provenance
    from laser_interp.storage.tables import write_table
    from laser_interp.studies.steps import outcomes

    model, facts = _load(args)
    edit = parse_laser(model, args.edit)
    generic = None
    if args.generic_corpus is not None:
        generic = frequent_words(args.generic_corpus, model=model, exclude=facts, progress=not args.quiet)
        print(f"note: {len(generic)} generic words: {' '.join(generic[:12])} …", file=sys.stderr)
    if args.split is not None:
        facts = facts.split(args.split)
    answers = favoured_answers(
        model, facts, edit, shares=args.share, start=args.start, generic=generic, top_k=args.top_k,
        progress=not args.quiet,
    )  # fmt: skip
    answers, shares = outcomes(answers)
    shown = shares[shares["outcome"].isin(["all", "fixed", "broken"])]
    table = shown[["outcome", "edit", "share", *CATEGORIES, "n"]]
    said = continuations(model, [fact.prompt for fact in facts.facts[:3]], edit, max_new_tokens=8)
    told = provenance(model, facts) | {
        "edit": args.edit,
        "start": args.start,
        "generic": None if generic is None else list(generic),
        "neighbours": answers.attrs["neighbours"],
    }
    path = write_table(answers, args.out, "answers", told)
    _say(
        args,
        {"shares": _records(shown), "generic": told["generic"], "answers": str(path)},
        f"{table.round(3).to_string(index=False)}\n{said}\nAll answers: {path}",
    )


def _attribute(args: argparse.Namespace) -> None:
    from laser_interp.discarded.attribution import attribute, propose
    from laser_interp.selection.cells import provenance
    from laser_interp.storage.tables import write_table

    model, facts = _load(args)
    if args.split is not None:
        facts = facts.split(args.split)
    elif "validation" in facts.splits:
        facts = facts.split("validation")  # a proposal is a choice
    found = attribute(model, facts, args.sites, progress=not args.quiet)
    proposed = propose(found).head(8)
    path = write_table(found.summary(args.by), args.out, None, provenance(model, facts))
    _say(
        args,
        {"proposed": _records(proposed), "directions": str(path)},
        "If effects were linear, LASER would change the mean log p(answer) by:\n"
        f"{proposed.round(4).to_string(index=False)}\nAll directions: {path}",
    )


def _evaluate(args: argparse.Namespace) -> None:
    from laser_interp.facts.published import load_task, own_task
    from laser_interp.models.model import load_model
    from laser_interp.storage.tables import read_table
    from laser_interp.studies.tasks import evaluate

    if args.out is None:
        raise ValueError("--out is missing: a folder for the results")
    if args.task == "own":
        if args.data is None:
            raise ValueError("--data is missing: your facts, for --task own")
        task = own_task(args.data, args.kind)
    else:
        task = load_task(args.task, args.data, protocol=args.protocol)
    if args.limit is not None:
        task = task.keep(task.facts.keep(task.facts.facts[: args.limit]))
    print(task, file=sys.stderr if args.json else sys.stdout)
    found = evaluate(
        load_model(args.model, revision=args.revision, device=args.device, dtype=args.dtype),
        task,
        args.out,
        matrices=args.matrices,
        layers=args.layers,
        rhos=args.rho,
        split=args.split,
        seed=args.seed,
        text=None if args.text is None else Path(args.text).read_text(encoding="utf-8"),
        counts=None if args.counts is None else read_table(args.counts, "counts"),
        memory=args.memory,
        progress=not args.quiet,
    )
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    summary = json.loads((Path(args.out) / "summary.json").read_text(encoding="utf-8"))
    _say(args, summary, f"{(Path(args.out) / 'REPORT.md').read_text(encoding='utf-8')}\nAll results: {args.out}")


def _report(args: argparse.Namespace) -> None:
    from laser_interp.report.page import write_report
    from laser_interp.storage.tables import read_table

    counts = None if args.counts is None else read_table(args.counts, "counts")
    path = write_report(args.folder, args.out, counts=counts, max_facts=args.max_facts, progress=not args.quiet)
    n_bytes = path.stat().st_size
    _say(
        args,
        {"page": str(path), "bytes": n_bytes},
        f"{path} ({n_bytes / 1e6:.1f} MB): open it in a browser; it needs no network.",
    )


def _finished(one: argparse.ArgumentParser, run: Callable[[argparse.Namespace], None]) -> None:
    """What every command has."""
    one.add_argument("--quiet", action="store_true", help="no progress bars")
    one.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else")
    one.set_defaults(run=run)


def _corpus_arguments(one: argparse.ArgumentParser, required: bool) -> None:
    one.add_argument(
        "--corpus",
        nargs="+",
        required=required,
        default=None,
        help="files, folders, patterns: .txt .jsonl .json (.gz .zst), .parquet, saved datasets, or 'organism'",
    )
    one.add_argument("--text-column", default="text", help="of jsonl, parquet and so on (default: %(default)s)")
    one.add_argument(
        "--document",
        default="line",
        choices=["line", "paragraph", "file"],
        help="what is one in a .txt (default: %(default)s)",
    )
    one.add_argument("--skip", action="store_true", help="skip what cannot be read, and tell, instead of stopping")


def _model_arguments(one: argparse.ArgumentParser, facts: bool = True) -> None:
    one.add_argument("--model", required=True, help="shipped name, folder or hub id")
    if facts:
        one.add_argument("--facts", required=True, help="shipped name or a fact file (.jsonl, .csv, .parquet)")
    one.add_argument("--revision", default=None, help="of a hub id")
    one.add_argument("--device", default="auto")
    one.add_argument("--dtype", default="auto")


def _grid_arguments(one: argparse.ArgumentParser, facts: bool = True) -> None:
    from laser_interp.selection.cells import RHOS

    _model_arguments(one, facts)
    one.add_argument("--out", default=None, help="folder for the results; the same command goes on from it")
    one.add_argument("--layers", default="all", help="'all' or numbers, as in 0,3 (default: %(default)s)")
    one.add_argument(
        "--rho",
        nargs="+",
        type=float,
        default=list(RHOS),
        help="fractions of rank kept (default: the paper's)",
    )
    one.add_argument(
        "--split", choices=["subject", "paper"], default=None, help="split anew: by subject, or the first 20 %%"
    )
    one.add_argument("--seed", type=int, default=0, help="of the split by subject")
    one.add_argument("--memory", default=None, help="for activations, as in 2GiB")


def _parser() -> argparse.ArgumentParser:
    import shtab

    from laser_interp.storage.tables import code_version

    parser = argparse.ArgumentParser(
        prog="laser-interp",
        description="An instrument for LASER's rank reductions.",
        epilog="example: laser-interp reproduce --out runs/organism; `laser-interp COMMAND --help` shows one of each",
    )
    parser.add_argument("--version", action="version", version=f"laser-interp {code_version()}")
    shtab.add_argument_to(parser, ["--print-completion"], help="completion for a shell, to be sourced by it")
    parser.add_argument("--verbose", action="store_true", help="show where an error arose, and libraries' messages")
    commands = parser.add_subparsers(dest="command", required=True)

    one = commands.add_parser(
        "reproduce",
        help="the paper's argument on the model organism, in about a minute",
        epilog="example: laser-interp reproduce --out runs/organism",
    )
    one.add_argument("--out", default="runs/organism", help="folder for the results (default: %(default)s)")
    _finished(one, _reproduce)

    one = commands.add_parser(
        "compress",
        help="store an edited model smaller, as thin factors, or export it dense",
        epilog="example: laser-interp compress --model organism --edit 3.in:0.05 --out smaller",
    )
    one.add_argument("--model", required=True, help="shipped name, folder or hub id")
    one.add_argument("--edit", required=True, help="SITE:RHO, as in 27.in:0.01; several joined by +; *.mlp:0.1 for all")
    one.add_argument("--out", required=True, help="folder for the checkpoint; must not exist")
    one.add_argument("--dense", action="store_true", help="a plain transformers checkpoint with the truncated weights")
    one.add_argument("--measure", action="store_true", help="also measure the peak memory before and after")
    one.add_argument("--revision", default=None, help="of a hub id")
    one.add_argument("--device", default="auto", help="for the factorisation (default: %(default)s)")
    _finished(one, _compress)

    one = commands.add_parser(
        "sweep",
        help="LASER at every layer, matrix and rho; validation selects, test reports",
        epilog="example: laser-interp sweep --model organism --facts organism --matrices mlp --rho 0.2 0.05 --out run",
    )
    _grid_arguments(one)
    one.add_argument("--matrices", nargs="+", default=["all"], help="names or groups: q k v o in gate out attn mlp all")
    one.add_argument("--alpha", nargs="+", type=float, default=[], help="also inject the discarded part so strongly")
    one.add_argument("--band", nargs="+", default=[], help="also keep only these directions, as in 0:10 10:50")
    one.add_argument("--control", nargs="+", default=[], help="also these, as in discarded zeroed random_kept")
    one.add_argument("--seeds", nargs="+", type=int, default=[0], help="of the random controls")
    one.add_argument("--stop-hopeless", action="store_true", help="no test for cells that validation shows to be worse")
    one.add_argument("--no-candidates", action="store_true", help="do not rank among the answers of the relation")
    one.add_argument("--engine", default="fast", choices=["fast", "reference"])
    one.add_argument("--executor", default="local", choices=["local", "ray"])
    one.add_argument("--workers", type=int, default=None, help="Ray actors")
    one.add_argument("--dry-run", action="store_true", help="only say how many cells, how long and how much memory")
    _finished(one, _sweep)

    one = commands.add_parser(
        "compose",
        help="add one LASER after the other, from the last layer, while it helps",
        epilog="example: laser-interp compose --model organism --facts organism --rho 0.4 0.05 --out run",
    )
    _grid_arguments(one)
    one.add_argument("--matrices", nargs="+", default=["mlp"], help="names or groups (default: mlp)")
    _finished(one, _compose)

    one = commands.add_parser(
        "decode",
        help="what the discarded components answer",
        epilog="example: laser-interp decode --model organism --facts organism --edit 3.in:rank=1 --out out.parquet",
    )
    _model_arguments(one)
    one.add_argument("--edit", required=True, help="SITE:RHO or SITE:rank=K, as in 27.in:0.01; several joined by +")
    one.add_argument("--share", nargs="+", type=float, default=[1.0], help="of the discarded part (default: all)")
    one.add_argument("--start", default="bottom", choices=["bottom", "top"], help="where a share begins to grow")
    one.add_argument("--top-k", type=int, default=5, help="answers listed for each prompt (default: %(default)s)")
    one.add_argument("--generic-corpus", nargs="+", default=None, help="take generic words from this corpus")
    one.add_argument("--split", default=None, help="only this split of the facts")
    one.add_argument("--out", required=True, help="a .parquet file")
    _finished(one, _decode)

    one = commands.add_parser(
        "attribute",
        help="which singular directions help or harm, by one backward pass a batch",
        epilog="example: laser-interp attribute --model organism --facts organism --out directions.parquet",
    )
    _model_arguments(one)
    one.add_argument("--sites", default=None, help="as in *.mlp or 3.in (default: all)")
    one.add_argument("--by", default=None, choices=["relation", "subject", "split"], help="one mean a group")
    one.add_argument("--split", default=None, help="of the facts (default: validation, if there is one)")
    one.add_argument("--out", required=True, help="a .parquet file: one row a direction")
    _finished(one, _attribute)

    one = commands.add_parser(
        "evaluate",
        help="from a task to the paper's row: sweep, selection, test, controls, report",
        epilog="example: laser-interp evaluate --model M --task counterfact --data counterfact.json --out RUN",
    )
    one.add_argument("--task", required=True, help="a published set, or 'own'")
    one.add_argument("--data", default=None, help="its file or folder as published; none: from the hub, by name")
    one.add_argument("--kind", default="next_token", help="of --task own: next_token candidates truths generation")
    one.add_argument("--protocol", default="corrected", choices=["corrected", "paper"])
    one.add_argument("--limit", type=int, default=None, help="only the first so many facts")
    one.add_argument("--text", default=None, help="a text file, for perplexity before and after")
    one.add_argument("--counts", default=None, help="from laser-interp count: adds the frequency report")
    _grid_arguments(one, facts=False)
    one.add_argument("--matrices", nargs="+", default=["mlp"], help="names or groups (default: mlp)")
    _finished(one, _evaluate)

    one = commands.add_parser(
        "count",
        help="how many documents of a corpus mention each fact",
        epilog="example: laser-interp count --facts facts.jsonl --corpus 'data/*.jsonl.zst' --out counts.parquet",
    )
    one.add_argument("--facts", required=True, help="shipped name or a fact file (.jsonl, .csv, .parquet)")
    _corpus_arguments(one, required=False)
    one.add_argument("--index", default=None, help="ask this index instead of scanning")
    one.add_argument("--out", required=True, help="a .parquet file; the same command goes on if it was stopped")
    one.add_argument("--window", type=int, default=None, help="also count both with at most so many words between")
    one.add_argument("--executor", default="local", choices=["local", "ray"])
    one.add_argument("--workers", type=int, default=None, help="processes, or Ray tasks at a time")
    _finished(one, _count)

    one = commands.add_parser(
        "index",
        help="index a corpus once, to count in it often",
        epilog="example: laser-interp index --corpus 'data/*.jsonl.zst' --out index",
    )
    _corpus_arguments(one, required=True)
    one.add_argument("--out", required=True, help="folder for the index; must not exist")
    one.add_argument("--backend", default=None, choices=["tantivy", "sqlite"], help="default: tantivy if installed")
    _finished(one, _index)

    one = commands.add_parser(
        "report",
        help="a run as one HTML page to explore",
        epilog="example: laser-interp report runs/organism -o report.html",
    )
    one.add_argument("folder", metavar="RUN", help="folder of a sweep, of evaluate or of reproduce")
    one.add_argument("-o", "--out", required=True, help="the .html file")
    one.add_argument("--counts", default=None, help="from laser-interp count (default: those in the run)")
    one.add_argument("--max-facts", type=int, default=20_000, help="sample more than these (default: %(default)s)")
    _finished(one, _report)

    organism = commands.add_parser("organism", help="the model organism").add_subparsers(dest="verb", required=True)
    one = organism.add_parser(
        "train",
        help="train an organism from scratch (about 3 minutes)",
        epilog="example: laser-interp organism train --alpha 0.35 --seed 1 --out my-organism",
    )
    one.add_argument("--out", required=True, help="folder for the checkpoint; must not exist")
    one.add_argument("--alpha", type=float, default=0.35, help="share of generic continuations (default: %(default)s)")
    one.add_argument("--seed", type=int, default=1, help="of facts, text, weights and batches (default: %(default)s)")
    one.add_argument("--steps", type=int, default=2500, help="length of the schedule (default: %(default)s)")
    one.add_argument("--stop-at", type=int, default=None, help="stop early after so many steps (the control: 300)")
    _finished(one, _train)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; errors a user can mend are one line, without a traceback."""
    args = _parser().parse_args(argv)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "info" if args.verbose else "error")
    try:
        args.run(args)
    except (ValueError, OSError, MemoryError, ModuleNotFoundError) as error:
        if args.verbose:
            traceback.print_exc()
        print(f"laser-interp: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "laser-interp: interrupted; what was computed is kept, and the same command goes on from it",
            file=sys.stderr,
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
