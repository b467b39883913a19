"""What happens, in order. Prefect imports a flow from its worker's folder first: a file there may hide our packages."""

from frostline_start.own_packages import check_packages

check_packages()
