"""Weights, state and one step at a time: prompts and state in, pictures and state out."""
