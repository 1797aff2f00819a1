"""Files of weights: what they contain, found without running anything in them."""
