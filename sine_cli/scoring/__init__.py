"""How good an edit is: alignment of a picture with words, distance of a picture to the source."""
