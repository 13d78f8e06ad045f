"""How an engine comes to be: export, build, verification, benchmark, publication.

This package runs from the checkout. It imports :mod:`zoo`, never the reverse. The stages do not
import each other; :mod:`builders.run.job_runner` composes them.
"""
