"""Figures by matplotlib and Pillow."""
