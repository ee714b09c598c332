"""Text metrics, bootstrap intervals, agreement, counts of a dataset, and tables of scores."""
