"""The n-gram expert: a linear model of words, pairs and triples, fitted in seconds, to compare and combine an encoder with."""
