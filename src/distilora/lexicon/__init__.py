"""The n-gram expert: a linear model of a text's words, pairs and triples, fitted in seconds, that a run is compared and combined with."""
