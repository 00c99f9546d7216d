"""The command line: `laser-interp COMMAND`, one file a command."""
