"""The roof: settings, wiring, processes, commands. It knows everyone and is known by nobody."""
