"""What every measurement is made with: the machine, the servers, the load, the arithmetic and the report."""
