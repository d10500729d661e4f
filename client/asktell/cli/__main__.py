"""`python -m asktell.cli` is `asktell`."""

from asktell.cli.app import main

if __name__ == "__main__":
    main()
