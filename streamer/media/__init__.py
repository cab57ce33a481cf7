"""Encoded once, sent to everybody: pictures in, packets and fragments out, to viewers of their own speeds."""
