"""`python -m sine_cli` is `sine`."""

from sine_cli.cli.main import main

if __name__ == "__main__":
    main()
