"""What a model learns besides its task: modules with ``loss(batch)``, ``depth`` and ``layer``, as a task has them."""
