"""The command line: a file a command, and what the commands share."""
