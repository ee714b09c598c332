"""Metrics, bootstrap intervals and tables that several stages use."""
