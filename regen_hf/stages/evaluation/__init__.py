"""Write narratives for held-out users and score them against references, with controls (section 5)."""
