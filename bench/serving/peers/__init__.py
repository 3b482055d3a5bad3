"""Other servers, scripts for the Pythons of their own environments: PYTHON NAME_app.py WORK PORT HOW, on the exports in WORK."""
