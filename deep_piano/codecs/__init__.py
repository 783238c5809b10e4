"""Codecs: audio or notes to a sequence of steps, and back."""
