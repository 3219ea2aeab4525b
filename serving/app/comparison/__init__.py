"""The classic experiment: every variant of a model over the same inputs, beside the reference.

``comparing`` runs it, ``quantities`` is what is found. Each variant is opened in a process of its
own (``variant_process``), which does what ``measuring`` says. That process imports this package, so
nothing is imported here.
"""
