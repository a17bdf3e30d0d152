"""What the operator configures: options, their types, strports strings, and passwords kept out of messages."""
