"""What holds for all tests: no network, so that a mistake shows here as it would on a train."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported, which reads it then
