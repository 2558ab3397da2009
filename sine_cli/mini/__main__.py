"""`python -m sine_cli.mini build`: see `sine_cli.cli.mini`."""

from sine_cli.cli.main import main
from sine_cli.cli.mini import app

if __name__ == "__main__":
    main(application=app, name="python -m sine_cli.mini")
