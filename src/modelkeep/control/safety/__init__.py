"""What administrators allow although it is dangerous: formats that run code, and runners that are locked in less well."""
