"""People who know S4 from its texts alone: a developer on a laptop, an admin of one server, one of six disks, one of a
cluster.

`make trials` runs them, with real programs, disks and namespaces, and writes what happened to docs/trials.md. They are
no tests of functions: those are in tests/. What they do comes from the blocks and tables of README.md and docs/
(`texts.py`), so that a text which changes changes the trial, or ends it by name. Besides they make the mistakes that
people make. `log.py` judges each answer.
"""
