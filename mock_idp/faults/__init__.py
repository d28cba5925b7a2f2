"""The faults that the mock can be told to have: of a token, of a document, of a response, and when they happen."""
