"""The Hub: pushing what a run contains, verifying it, and serving the Space on this machine."""
