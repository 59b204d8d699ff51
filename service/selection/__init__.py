"""Selection: which samples become a training set."""
