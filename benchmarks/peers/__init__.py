"""A training step of ours beside those of other frameworks: what each of them runs, how they take turns, what is told of it.

contract.py  what all contestants agree on, and what they tell of themselves
contestants/ one file for each framework, each in a process of its own (worker.py)
turns.py     starts the processes, lets them take turns, watches what else the machine does
table.py     bounds, ratios and agreement of losses, as rows
report.py    the rows as JSON, Markdown and a picture
install.py   the peers' own virtual environment
"""
