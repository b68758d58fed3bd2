"""Decoders: what turns a backbone's features into an answer."""
