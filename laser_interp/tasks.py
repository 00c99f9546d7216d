"""Published sets and your own facts, as tasks with a rule by which an answer counts as right."""

from laser_interp.facts.lm_eval_task import write_lm_eval_task
from laser_interp.facts.published import load_task
from laser_interp.facts.tasks import Task, own_task
from laser_interp.studies.task_transfer import transfer, transfer_between_relations

__all__ = ["Task", "load_task", "own_task", "transfer", "transfer_between_relations", "write_lm_eval_task"]
