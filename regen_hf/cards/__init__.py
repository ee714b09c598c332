"""README files of datasets, models and Spaces, filled from the results of a run."""
