"""Workers of Ray's, forked from processes that have imported what all of them need.

Ray starts each worker as a new Python process. ``starting`` has it start ``stand_in`` instead,
which asks a ``server`` for a fork. Where none answers, the stand-in becomes the process that Ray
meant.
"""
