"""`factory annotations`: to and from the programs in which people draw masks, and checking them."""
