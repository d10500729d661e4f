"""`python -m asktell.worker` is `asktell work`."""

from asktell.worker.cli import main

if __name__ == "__main__":
    main()
