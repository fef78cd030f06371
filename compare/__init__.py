"""Comparing: two answers side by side, blind votes, ratings and results. Only the local engine and decode import torch."""
