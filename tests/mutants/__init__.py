"""Each guard of the protocol, removed: the tests are to notice."""
