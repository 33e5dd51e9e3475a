"""The command line: `tinytorch train | evaluate | predict | compare | doctor`, one file a command."""
