"""How the checkpoint that ships with the repository was trained: `biformer_nano` on handwritten digits."""
