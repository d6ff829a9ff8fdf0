"""Restores and drills: what is in a backup is read, proven and opened, and then put in place, compared, or let go.

Reading a backup is the same for all (`sources.py`, `dumps.py`): the manifest and the key file are held against what the
database knows of both; records are proven before they are seen; erased subjects are left out before anything opens.
`replacing.py` puts a tenant's own data back, `comparing.py` says what that would change, `drilling.py` proves that it
could be done, and `moving.py` makes a new tenant of a backup.
"""
