"""``python -m vitrail``, as ``torchrun`` starts it."""

from vitrail.cli.main import main

if __name__ == "__main__":
    main()
