"""Research that uses the library: the articles' claims put to the test, and their programs corrected."""
