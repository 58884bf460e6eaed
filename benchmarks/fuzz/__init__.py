"""Hostile inputs in great numbers: each has to end in a documented exit code and one message, or be right."""
