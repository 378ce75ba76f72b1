"""Prefect flows over `pipelines`; importing this package starts nothing."""
