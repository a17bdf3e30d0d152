"""Broadcasting a document's changes to its subscribers."""
