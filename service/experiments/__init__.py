"""Comparisons as documents: which data makes the better student at equal compute.

`spec` is what is asked, `graph` which jobs, selections and finetunes that takes, `results` what they found.
"""
