"""How good a model is, in numbers and in pictures: pure functions, and small accumulators that gather for them."""
