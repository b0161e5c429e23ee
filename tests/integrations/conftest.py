"""The scripts here run in processes of their own; they are no modules of tests."""

collect_ignore = ["ddp_fit.py", "keras_check.py", "keras_fit.py"]
