"""Completions that exist already become a finished job: which columns, which problems, which sample indices."""
