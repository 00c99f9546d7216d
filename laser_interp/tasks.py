"""Published sets and your own facts, as tasks with a rule by which an answer counts as right."""

from laser_interp.facts.lm_eval_task import write_lm_eval_task as write_lm_eval_task
from laser_interp.facts.published import load_task as load_task
from laser_interp.facts.tasks import Task as Task
from laser_interp.facts.tasks import own_task as own_task
from laser_interp.studies.task_transfer import transfer as transfer
from laser_interp.studies.task_transfer import transfer_between_relations as transfer_between_relations
