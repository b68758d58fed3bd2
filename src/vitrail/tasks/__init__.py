"""The tasks by name."""

from vitrail.tasks.classification import Classification
from vitrail.tasks.task import Task

TASKS: dict[str, type[Task]] = {"classification": Classification}

__all__ = ["TASKS", "Classification", "Task"]
