"""Push a run to the Hub, verify the push, and serve the Space on this machine."""
