"""Sealing and opening values, and the backup of the sealing keys. Pure, except for random numbers."""
