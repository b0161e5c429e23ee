"""The programs of the five articles, corrected and run, and their faults with what catches each.

Articles 001 and 002 print no programs. Run one with ``python -m experiments.articles.dbn_with_clipping``, and
``python -m experiments.articles.faults`` for the table of faults.
"""
