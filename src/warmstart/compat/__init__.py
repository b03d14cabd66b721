"""All uses of private APIs of other libraries, one module per library.

Each module states the release in which these APIs were checked, and each function the API and why no public one can
replace it. A test in ``tests/compat`` fails with a clear message if an API has changed. This package imports no other
package of warmstart.
"""
