"""One file a claim: its docstring tells the experiment, ``CLAIM`` holds the rest."""
