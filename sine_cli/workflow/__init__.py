"""What the commands do, each a numbered story. Values in, values out; progress through callbacks."""
