"""Rows of the fine-tuning services and trainers, one module each."""
