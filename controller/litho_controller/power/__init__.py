"""Switching nodes on and off. Here by a program of the site's (`command`); other ways will stand beside it."""
