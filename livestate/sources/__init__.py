"""Where documents come from: one package or module for each kind of store, and `api`, the interfaces they implement."""
