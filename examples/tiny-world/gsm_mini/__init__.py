"""gsm-mini: a synthetic world of word problems whose solutions can be checked exactly, and models trained in it.

The package owns the problems, their solutions, the exact checker, the tokenizer and the models. It is self-contained:
it imports nothing of the application, and only `tokenizer`, `model` and `training` need torch or transformers.
"""
