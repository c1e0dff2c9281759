"""A simulated pool over traces of load: what each rule of scaling makes of it."""
