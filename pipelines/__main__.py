"""`python -m pipelines` is `request-logs`."""

from pipelines.cli import main

main()
