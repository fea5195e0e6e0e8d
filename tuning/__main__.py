"""`python -m tuning` is the command `lorasweep`."""

from tuning.cli import main

main()
