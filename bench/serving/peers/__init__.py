"""Other servers, scripts for the Pythons of their own environments: PYTHON NAME_app.py WORK PORT HOW, on the exports in WORK.

An environment is made of its requirements: python -m venv FOLDER; FOLDER/bin/python -m pip install -r NAME.txt
"""
