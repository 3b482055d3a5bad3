"""Holds what is read, headed, trained for, decoded and measured: one file a task; torch only inside head, loss and explained."""
