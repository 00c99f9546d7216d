"""What a study found, for the top of the page: a summary in words, and a table for each question."""

from pathlib import Path
from typing import Any

from laser_interp.storage.checksums import read_checked_json
from laser_interp.storage.run_folder import SUMMARY, read_tables
from laser_interp.studies.questions import QUESTIONS


def study_part(run: Path) -> dict[str, Any] | None:
    """Words and tables of a study's folder; None where the run is a search alone."""
    if not (run / SUMMARY).is_file():
        return None
    summary, tables = read_checked_json(run / SUMMARY), read_tables(run)
    answers = [answer for question in QUESTIONS if (answer := question.read(tables, summary)) is not None]
    return {
        "words": [line for answer in answers for line in answer.page_words()],
        "frequency": summary.get("frequency_in_words"),
        "mechanism": summary.get("mechanism", {}).get("in_words", []),
        "tables": [table.as_json() for answer in answers if (table := answer.page_table()) is not None],
    }
