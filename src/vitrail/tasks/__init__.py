"""The tasks by name: of images, of text."""

from vitrail.tasks.answer import Answering
from vitrail.tasks.classification import Classification
from vitrail.tasks.learner import Learner
from vitrail.tasks.tagging import Tagging
from vitrail.tasks.task import Task
from vitrail.tasks.text_classification import TextClassification, TextPair
from vitrail.tasks.text_task import TextTask

IMAGE_TASKS: dict[str, type[Task]] = {"classification": Classification}
TEXT_TASKS: dict[str, type[TextTask]] = {
    "text-classification": TextClassification,
    "text-pair": TextPair,
    "tagging": Tagging,
    "answer": Answering,
}
TASKS: dict[str, type[Learner]] = {**IMAGE_TASKS, **TEXT_TASKS}

__all__ = [
    "IMAGE_TASKS",
    "TASKS",
    "TEXT_TASKS",
    "Answering",
    "Classification",
    "Tagging",
    "Task",
    "TextClassification",
    "TextPair",
    "TextTask",
]
