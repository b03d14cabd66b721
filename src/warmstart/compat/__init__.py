"""Every use of another library's private parts: one module a library, and nothing private anywhere else.

Each function names the release in which the part was read and why no public way serves. A test in ``tests/compat``
fails with a sentence when the part has moved. Nothing here imports another package of warmstart.
"""
