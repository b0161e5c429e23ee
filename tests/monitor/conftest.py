"""The scripts are run by their test, as people run them; to import one is to train."""

collect_ignore = ["scripts"]
