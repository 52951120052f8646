"""What `manage.py digi …` does: a module for each word, with `HELP`, `add_arguments` and `run`."""
