"""What a node boots with: the words of its kernel command line (`cmdline`). Boot loaders' files will stand beside it."""
