"""Turns a source into cleaned examples and divides them into splits; knows neither torch nor any task but by `Reader`."""
