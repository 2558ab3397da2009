"""The project on disk: manifest, picture, prompts and runs. Knows no torch, prints nothing."""
