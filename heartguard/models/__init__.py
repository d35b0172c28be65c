"""The contract's types. One module is one published schema domain."""
