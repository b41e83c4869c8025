"""Decisions without I/O: proofs, tokens, codes, pages, cursors and the limits of accounts."""
