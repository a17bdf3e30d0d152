"""What the operator configures: options and their types, strports strings, and the redaction of passwords."""
