"""What happens, in order.

Prefect puts the worker's folder first on the path, so a file there may hide one of our packages.
"""

from frostline_start.own_packages import check_packages

check_packages()
