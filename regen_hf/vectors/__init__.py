"""Vectors of items and purchases, and the batches built from them."""
