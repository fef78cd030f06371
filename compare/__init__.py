"""Comparing: two answers side by side, blind votes, results. Only the local engine and the decode loop import torch."""
