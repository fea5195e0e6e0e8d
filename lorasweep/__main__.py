"""The command `lorasweep`, also as `python -m lorasweep`."""

from lorasweep.command_line.main import main

if __name__ == "__main__":
    main()
