"""Holds the tasks, one file each: reading, head, loss, decoding, metrics; torch only inside head, loss and explained."""
