"""Keeps test images of MVTec LOCO AD out of training files."""
