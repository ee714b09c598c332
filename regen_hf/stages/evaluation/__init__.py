"""Evaluation: narratives for held-out users, scored against the references, with controls (section 5)."""
