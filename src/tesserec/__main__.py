"""`python -m tesserec` is the `tesserec` command."""

from tesserec.cli.main import main

main()
