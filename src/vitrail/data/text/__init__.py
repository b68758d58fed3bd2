"""Text as data: tokens, corpora, and the batches that are made of them."""
